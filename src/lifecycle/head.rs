//! Finding the end of an HTTP/1 request head in bytes that arrive in pieces.

/// Where the search stands: no byte is looked at twice.
#[derive(Debug, Default)]
pub struct Search {
    /// Everything before this was searched.
    searched: usize,
    /// Where the last line begins.
    line: usize,
    /// A line with something on it was seen: empty lines before the request line are ignored
    /// (RFC 9112, section 2.2).
    begun: bool,
}

impl Search {
    /// The length of the head in `bytes`, empty line included, if it is complete. Call it again
    /// with the same bytes and more.
    ///
    /// Lines may end in LF alone, as Pingora's parser allows. What the lines say is left to it.
    pub fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(at) = memchr::memchr(b'\n', &bytes[self.searched..]) {
            let line_end = self.searched + at;
            let line = &bytes[self.line..line_end];
            (self.searched, self.line) = (line_end + 1, line_end + 1);
            if !matches!(line, [] | [b'\r']) {
                self.begun = true;
            } else if self.begun {
                return Some(self.line);
            }
        }
        self.searched = bytes.len();
        None
    }
}

/// Whether the request line has two blanks and no control character (RFC 9112, section 3):
/// Pingora would escape what is more and send it on.
pub fn has_plain_request_line(head: &[u8]) -> bool {
    let line = head
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .find(|line| !line.is_empty());
    let line = line.unwrap_or_default();
    let blanks = memchr::memchr_iter(b' ', line).count();
    blanks == 2 && line.iter().all(|byte| *byte >= b' ' && *byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: [&str; 4] = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
    ];

    #[test]
    fn a_head_ends_at_its_empty_line() {
        for head in HEADS {
            let with_body = format!("{head}body\r\n\r\nmore");
            assert_eq!(
                Search::default().end(with_body.as_bytes()),
                Some(head.len()),
                "{head:?}"
            );
        }
    }

    #[test]
    fn a_request_line_has_two_blanks_and_no_control_character() {
        for head in HEADS {
            assert!(has_plain_request_line(head.as_bytes()), "{head:?}");
        }
        for line in [
            "GET /a b HTTP/1.1",
            "GET /",
            "GET /a\0b HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "",
            "GET / HTTP/1.1 ",
        ] {
            assert!(
                !has_plain_request_line(format!("{line}\r\n\r\n").as_bytes()),
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_head_in_two_pieces_ends_at_the_same_place() {
        for head in HEADS {
            for cut in 0..head.len() {
                let mut search = Search::default();
                assert_eq!(
                    search.end(&head.as_bytes()[..cut]),
                    None,
                    "{head:?} cut at {cut}"
                );
                assert_eq!(
                    search.end(head.as_bytes()),
                    Some(head.len()),
                    "{head:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn an_incomplete_head_has_no_end() {
        for head in [
            "",
            "\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r",
        ] {
            assert_eq!(Search::default().end(head.as_bytes()), None, "{head:?}");
        }
    }
}
