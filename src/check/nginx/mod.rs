//! What nginx was told: its files with their includes, and what they mean for a request.

mod site;
mod syntax;
mod tree;
pub(super) mod values;

pub(super) use site::{Http, Scope, Site, Upstream, is_down};
pub(super) use syntax::Directive;
pub(super) use tree::Tree;
