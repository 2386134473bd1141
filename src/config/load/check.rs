//! What can be said of a file before its types are known: keys are text and stand
//! once, there are no tags, and variables are put in.

use std::collections::HashSet;

use super::finding::{Finding, Step, quoted};
use super::interpolate::interpolate;
use super::tree::{Entry, Kind, Node};
use crate::config::Environment;

/// Puts variables in and marks what is wrong as broken.
pub(super) fn check(root: &mut Node, environment: Environment<'_>) -> Vec<Finding> {
    let mut check = Check {
        environment,
        path: Vec::new(),
        findings: Vec::new(),
    };
    check.node(root);
    check.findings
}

struct Check<'a> {
    environment: Environment<'a>,
    path: Vec<Step>,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn refuse(&mut self, node: &Node, message: impl Into<String>) {
        self.findings
            .push(Finding::new(node.order, &self.path, message));
        node.set_broken();
    }

    fn node(&mut self, node: &mut Node) {
        match &mut node.kind {
            Kind::Text(_) => self.text(node),
            Kind::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.inside(Step::Index(index), |check| check.node(item));
                }
            }
            Kind::Mapping(entries) => self.entries(entries),
            Kind::Tagged => self.refuse(node, "tags (`!name`) are not understood: leave it out"),
            Kind::Nothing | Kind::Bool(_) | Kind::Whole(_) | Kind::Fraction(_) => {}
        }
    }

    fn inside(&mut self, step: Step, visit: impl FnOnce(&mut Self)) {
        self.path.push(step);
        visit(self);
        self.path.pop();
    }

    fn entries(&mut self, entries: &mut [Entry]) {
        let mut seen = HashSet::new();
        for Entry {
            key,
            key_is_text,
            value,
        } in entries
        {
            let first = seen.insert(key.as_str());
            self.inside(Step::Key(key.clone()), |check| match key.as_str() {
                key if !*key_is_text => {
                    check.refuse(
                        value,
                        format!("keys must be text: put {} in quotes", quoted(key)),
                    );
                }
                "<<" => check.refuse(
                    value,
                    "`<<` merges a mapping, or a list of mappings, such as `<<: *base`",
                ),
                key if !first => {
                    check.refuse(value, format!("duplicate key {}: keep one", quoted(key)));
                }
                _ => check.node(value),
            });
        }
    }

    fn text(&mut self, node: &mut Node) {
        let Kind::Text(text) = &mut node.kind else {
            return;
        };
        match interpolate(&text.value, self.environment) {
            Ok(None) => {}
            Ok(Some(value)) => text.written = Some(std::mem::replace(&mut text.value, value)),
            Err(mistakes) => {
                for mistake in mistakes {
                    self.refuse(node, mistake);
                }
            }
        }
    }
}
