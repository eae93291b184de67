//! nginx's syntax: words, quotes, blocks, and where each of them stands; what they mean is not known here.

use crate::check::report::Place;
use std::iter::Peekable;
use std::path::Path;
use std::str::Chars;
use std::sync::Arc;

/// Blocks inside blocks; nginx's own files have five at most.
const DEPTH: usize = 32;

/// `name args… ;` or `name args… { block }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::check) struct Directive {
    /// The first word; in a map it is the entry's key.
    pub(in crate::check) name: String,
    /// The words after it, without quotes.
    pub(in crate::check) args: Vec<String>,
    /// What stands between its braces, if it has any.
    pub(in crate::check) block: Option<Vec<Directive>>,
    /// Where it begins.
    pub(in crate::check) place: Place,
}

impl Directive {
    /// The word at that position, or nothing.
    pub(in crate::check) fn arg(&self, at: usize) -> &str {
        self.args.get(at).map_or("", String::as_str)
    }

    /// What stands between its braces.
    pub(in crate::check) fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// As it would be written, without its block.
    pub(in crate::check) fn text(&self) -> String {
        let words = std::iter::once(&self.name).chain(&self.args);
        words.map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

/// Text that nginx would refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::check) struct SyntaxError {
    pub(in crate::check) place: Place,
    pub(in crate::check) what: &'static str,
}

/// The directives of a file.
pub(in crate::check) fn parse(file: &Path, text: &str) -> Result<Vec<Directive>, SyntaxError> {
    let mut parser = Parser { file: file.into(), chars: text.chars().peekable(), line: 1 };
    parser.block(0)
}

enum Token {
    Word(String),
    Semicolon,
    Open,
    Close,
    End,
}

struct Parser<'a> {
    file: Arc<Path>,
    chars: Peekable<Chars<'a>>,
    line: usize,
}

impl Parser<'_> {
    fn block(&mut self, depth: usize) -> Result<Vec<Directive>, SyntaxError> {
        let mut directives = Vec::new();
        loop {
            let mut words = Vec::new();
            let mut place = None;
            let block = loop {
                let token = self.token()?;
                match token {
                    Token::Word(word) => {
                        place.get_or_insert_with(|| self.here());
                        words.push(word);
                    }
                    Token::Semicolon if words.is_empty() => return Err(self.error("a `;` with nothing before it")),
                    Token::Semicolon => break None,
                    Token::Open if words.is_empty() => return Err(self.error("a `{` with nothing before it")),
                    Token::Open if depth == DEPTH => return Err(self.error("too many blocks inside each other")),
                    Token::Open => break Some(self.block(depth + 1)?),
                    Token::Close if !words.is_empty() => return Err(self.error("a `}` where `;` is missing")),
                    Token::Close if depth == 0 => return Err(self.error("a `}` that closes nothing")),
                    Token::Close => return Ok(directives),
                    Token::End if !words.is_empty() => return Err(self.error("the file ends where `;` is missing")),
                    Token::End if depth > 0 => return Err(self.error("the file ends where `}` is missing")),
                    Token::End => return Ok(directives),
                }
            };
            let mut words = words.into_iter();
            let (Some(name), Some(place)) = (words.next(), place) else { continue };
            directives.push(Directive { name, args: words.collect(), block, place });
        }
    }

    fn token(&mut self) -> Result<Token, SyntaxError> {
        loop {
            match self.next() {
                None => return Ok(Token::End),
                Some(c) if c.is_ascii_whitespace() => {}
                Some('#') => while self.chars.peek().is_some_and(|&c| c != '\n') && self.next().is_some() {},
                Some(';') => return Ok(Token::Semicolon),
                Some('{') => return Ok(Token::Open),
                Some('}') => return Ok(Token::Close),
                Some(quote @ ('"' | '\'')) => return self.quoted(quote).map(Token::Word),
                Some(first) => return Ok(Token::Word(self.bare(first))),
            }
        }
    }

    /// The rest of a quoted word; it may go on over lines.
    fn quoted(&mut self, quote: char) -> Result<String, SyntaxError> {
        let mut word = String::new();
        loop {
            match self.next() {
                None => return Err(self.error("the file ends inside quotes")),
                Some('\\') => self.escape(&mut word),
                Some(c) if c == quote => break,
                Some(c) => word.push(c),
            }
        }
        match self.chars.peek() {
            Some(&c) if !(c.is_ascii_whitespace() || ";{)".contains(c)) => Err(self.error("a quote with no space after it")),
            _ => Ok(word),
        }
    }

    /// The rest of a word without quotes, in which `${` opens no block.
    fn bare(&mut self, first: char) -> String {
        let mut word = String::new();
        let mut last = first;
        if first == '\\' {
            self.escape(&mut word);
        } else {
            word.push(first);
        }
        while let Some(&c) = self.chars.peek() {
            if c.is_ascii_whitespace() || c == ';' || c == '{' && last != '$' {
                break;
            }
            self.next();
            if c == '\\' {
                self.escape(&mut word);
            } else {
                word.push(c);
            }
            last = c;
        }
        word
    }

    /// What follows a backslash, which stays where it escapes nothing: regular expressions are full of them.
    fn escape(&mut self, word: &mut String) {
        match self.next() {
            Some(c @ ('"' | '\'' | '\\')) => word.push(c),
            Some('t') => word.push('\t'),
            Some('r') => word.push('\r'),
            Some('n') => word.push('\n'),
            Some(c) => word.extend(['\\', c]),
            None => word.push('\\'),
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn here(&self) -> Place {
        Place { file: Arc::clone(&self.file), line: self.line }
    }

    fn error(&self, what: &'static str) -> SyntaxError {
        SyntaxError { place: self.here(), what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_blocks_and_lines() {
        let text = "user www-data; # who; {\n\nhttp {\n  map $a $b {\n    default '';\n    \"~^0-\\d{2}\" \"a b\";\n    '' \"it's\";\n  }\n}\n";
        let all = parse(Path::new("x"), text).expect("parsed");
        assert_eq!((all[0].text().as_str(), all[0].place.line), ("user www-data", 1));
        let map = &all[1].inside()[0];
        assert_eq!((map.text().as_str(), map.place.line), ("map $a $b", 4));
        let entries: Vec<_> = map.inside().iter().map(|entry| (entry.name.as_str(), entry.arg(0), entry.place.line)).collect();
        assert_eq!(entries, [("default", "", 5), ("~^0-\\d{2}", "a b", 6), ("", "it's", 7)]);
    }

    #[test]
    fn a_variable_in_braces_opens_no_block() {
        let all = parse(Path::new("x"), "proxy_pass http://${backend}/x;log_format a 'b'\n 'c';").expect("parsed");
        assert_eq!(all[0].args, ["http://${backend}/x"]);
        assert_eq!((all[1].args.join("|"), all[1].place.line), ("a|b|c".to_owned(), 1));
    }

    #[test]
    fn escapes_and_comments_are_nginxs() {
        let all = parse(Path::new("x"), r#"a b#c \"d \.e "f\"g\.";"#).expect("parsed");
        assert_eq!(all[0].args, ["b#c", "\"d", "\\.e", "f\"g\\."]);
    }

    #[test]
    fn what_nginx_refuses_is_refused_with_its_line() {
        for (text, line, what) in [
            ("a;\n;", 2, "a `;` with nothing before it"),
            ("{", 1, "a `{` with nothing before it"),
            ("a {\nb c }", 2, "a `}` where `;` is missing"),
            ("}", 1, "a `}` that closes nothing"),
            ("a", 1, "the file ends where `;` is missing"),
            ("a {", 1, "the file ends where `}` is missing"),
            ("a 'b", 1, "the file ends inside quotes"),
            ("a 'b'c;", 1, "a quote with no space after it"),
            (&"a{".repeat(100), 1, "too many blocks inside each other"),
        ] {
            let error = parse(Path::new("x"), text).expect_err("refused");
            assert_eq!((error.place.line, error.what), (line, what), "{text}");
        }
    }
}
