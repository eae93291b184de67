//! The inputs that the fuzzer found worth keeping, through the same targets, so that both stay alive.

mod targets;

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

#[test]
fn no_input_that_was_kept_breaks_an_invariant() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut broken = Vec::new();
    for (name, _) in targets::TARGETS {
        let folder = fs::read_dir(corpus.join(name)).expect("a folder for each target");
        let files: Vec<_> = folder.map(|file| file.expect("a file").path()).collect();
        assert!(!files.is_empty(), "nothing was kept for {name}");
        for file in files {
            let input = fs::read(&file).expect("a file");
            if catch_unwind(|| targets::run(name, &input)).is_err() {
                broken.push(file);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn each_target_has_its_program() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
    for (name, _) in targets::TARGETS {
        let program = fs::read_to_string(folder.join(format!("bin/{name}.rs"))).expect("a program for each target");
        assert!(program.contains(&format!("run(\"{name}\", data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"bin/{name}.rs\"")), "{name}");
    }
    assert_eq!(fs::read_dir(folder.join("bin")).expect("a folder").count(), targets::TARGETS.len());
}
