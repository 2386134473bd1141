//! JSON pointers (RFC 6901) to values that are redacted. Our extension: the segment `*`
//! matches every element of an array and every member of an object.

use super::BadRule;

/// Compiled pointers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pointers(Vec<Vec<String>>);

impl Pointers {
    /// Compiles a list; the first mistake is named.
    pub fn parse(list: &[String]) -> Result<Self, BadRule> {
        let parsed = list.iter().map(|pointer| {
            segments(pointer).map_err(|reason| BadRule(format!("pointer `{pointer}`: {reason}")))
        });
        Ok(Self(parsed.collect::<Result<_, _>>()?))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The paths into a document.
    pub fn paths(&self) -> Vec<&[String]> {
        self.0.iter().map(Vec::as_slice).collect()
    }
}

/// What is left of the paths that lead through this member or element.
pub fn through<'a>(paths: &[&'a [String]], step: &str) -> Vec<&'a [String]> {
    let leads = |path: &&'a [String]| match path {
        [first, rest @ ..] if first == step || first == "*" => Some(rest),
        _ => None,
    };
    paths.iter().filter_map(leads).collect()
}

fn segments(pointer: &str) -> Result<Vec<String>, &'static str> {
    let path = pointer.strip_prefix('/').ok_or("must begin with /")?;
    path.split('/').map(segment).collect()
}

fn segment(escaped: &str) -> Result<String, &'static str> {
    let mut tildes = escaped.split('~').skip(1);
    if !tildes.all(|after| after.starts_with(['0', '1'])) {
        return Err("~ must be followed by 0 (for ~) or 1 (for /)");
    }
    // In this order, as RFC 6901 section 4 has it: ~01 is the text ~1.
    Ok(escaped.replace("~1", "/").replace("~0", "~"))
}
