//! Splits an upload that is a JSON array into its elements. The parts of the upload may be cut
//! anywhere.
//!
//! It follows only strings, escapes and depth. Whether an element is JSON is found when the element
//! is parsed, as for a line.
//!
//! Invariants: at most one element of maximum length is held, plus the part that was added last;
//! the elements do not depend on where the parts were cut; and if the array is valid JSON, they are
//! the elements of that array.

use std::num::NonZeroUsize;

use bytes::{Buf, BytesMut};

use crate::lines::Line;
use crate::rejection::Rejection;

/// An array that is not closed, or that does not end the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("element {element}: {detail}")]
pub struct BrokenArray {
    /// The number of the element that cannot be read, from 1.
    pub element: u64,
    /// What is wrong.
    pub detail: &'static str,
}

/// Whether a byte is white space in JSON.
pub(crate) const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The elements of an array that is still arriving.
#[derive(Debug)]
pub struct Elements {
    waiting: BytesMut,
    max_bytes: NonZeroUsize,
    /// How many elements have ended.
    ended_elements: u64,
    array: Array,
    body_ended: bool,
    element: Element,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Array {
    Open,
    Closed,
    /// What was wrong has been returned.
    Broken,
}

/// An element that is still arriving.
#[derive(Debug, Default)]
struct Element {
    text: Vec<u8>,
    /// The text would be longer than the maximum length. The rest is followed, but not held.
    is_too_long: bool,
    /// The number of brackets and braces that are open.
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// White space that ends the element, unless more of it follows.
    has_space: bool,
}

impl Element {
    const fn is_empty(&self) -> bool {
        self.text.is_empty() && !self.is_too_long
    }

    /// Adds a byte. Returns whether it is a `,` or `]` after the element instead.
    fn add(&mut self, byte: u8, max_bytes: usize) -> bool {
        if self.in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b',' | b']' if self.depth == 0 => return true,
                _ if self.depth == 0 && is_space(byte) => {
                    self.has_space = !self.is_empty();
                    return false;
                }
                b'"' => self.in_string = true,
                b'[' | b'{' => self.depth += 1,
                // A brace at depth 0 belongs to the element, which is then no JSON.
                b']' | b'}' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        if std::mem::take(&mut self.has_space) {
            self.push(b' ', max_bytes);
        }
        self.push(byte, max_bytes);
        false
    }

    fn push(&mut self, byte: u8, max_bytes: usize) {
        if self.text.len() < max_bytes && !self.is_too_long {
            self.text.push(byte);
        } else {
            self.is_too_long = true;
            self.text.clear();
        }
    }

    fn into_text(self, max_bytes: NonZeroUsize) -> Result<String, Rejection> {
        let wrong = |detail| Rejection::Field { field: "the element".to_owned(), detail };
        if self.is_too_long {
            return Err(wrong(format!("is longer than {max_bytes} bytes")));
        }
        if self.text.is_empty() {
            return Err(wrong("is empty: the array has a comma too many".to_owned()));
        }
        String::from_utf8(self.text).map_err(|error| Rejection::Malformed(error.to_string()))
    }
}

impl Elements {
    /// An array of which only the opening bracket has arrived. An element longer than `max_bytes`
    /// is rejected.
    pub fn new(max_bytes: NonZeroUsize) -> Self {
        Self {
            waiting: BytesMut::new(),
            max_bytes,
            ended_elements: 0,
            array: Array::Open,
            body_ended: false,
            element: Element::default(),
        }
    }

    /// Adds the next part of the upload. Take all complete elements with [`Self::next_element`]
    /// first: they would be held in memory otherwise.
    pub fn add(&mut self, part: &[u8]) {
        self.waiting.extend_from_slice(part);
    }

    /// Marks the end of the upload.
    pub const fn end(&mut self) {
        self.body_ended = true;
    }

    /// The number of bytes that are held.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting.len() + self.element.text.len()
    }

    /// The next complete element, as a line whose number is the one of the element. An element that
    /// cannot be read does not end the upload.
    ///
    /// # Errors
    /// The array ends too late or too early. No element follows.
    pub fn next_element(&mut self) -> Result<Option<Line>, BrokenArray> {
        let mut read = 0;
        let mut found = None;
        let mut goes_on = false;
        for byte in &self.waiting {
            read += 1;
            match self.array {
                Array::Open if !self.element.add(*byte, self.max_bytes.get()) => {}
                Array::Open => {
                    if *byte == b']' {
                        self.array = Array::Closed;
                        if self.ended_elements == 0 && self.element.is_empty() {
                            continue;
                        }
                    }
                    self.ended_elements += 1;
                    let text = std::mem::take(&mut self.element).into_text(self.max_bytes);
                    found = Some(Line { number: self.ended_elements, text });
                    break;
                }
                Array::Closed => {
                    goes_on = !is_space(*byte);
                    if goes_on {
                        break;
                    }
                }
                Array::Broken => {}
            }
        }
        self.waiting.advance(read);
        if goes_on {
            return Err(self.broken("the array has ended before it, but the body goes on"));
        }
        if found.is_none() && self.body_ended && self.array == Array::Open {
            return Err(self.broken("the body ends before the array does"));
        }
        Ok(found)
    }

    fn broken(&mut self, detail: &'static str) -> BrokenArray {
        self.array = Array::Broken;
        self.element = Element::default();
        BrokenArray { element: self.ended_elements + 1, detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The elements of the array that begins before `rest`, and what ended it too early or late.
    fn read(rest: &str) -> (Vec<Result<String, String>>, Option<String>) {
        let mut elements = Elements::new(NonZeroUsize::new(12).unwrap());
        elements.add(rest.as_bytes());
        elements.end();
        let mut read = Vec::new();
        loop {
            match elements.next_element() {
                Ok(None) => return (read, None),
                Ok(Some(line)) => {
                    read.push(line.text.map_err(|error| error.to_string()));
                    assert_eq!(line.number, read.len() as u64);
                }
                Err(error) => {
                    assert_eq!(elements.next_element(), Ok(None), "an error ends the array");
                    return (read, Some(error.to_string()));
                }
            }
        }
    }

    fn texts(texts: &[&str]) -> Vec<Result<String, String>> {
        texts.iter().map(|text| Ok((*text).to_owned())).collect()
    }

    #[test]
    fn elements_end_at_commas_outside_of_strings_and_brackets() {
        assert_eq!(read("]"), (vec![], None));
        assert_eq!(read(" \n] "), (vec![], None));
        assert_eq!(read(" {} , 7\n]\r\n"), (texts(&["{}", "7"]), None));
        assert_eq!(
            read(r#"{"a":[1,2]},"],\"}"]"#),
            (texts(&[r#"{"a":[1,2]}"#, r#""],\"}""#]), None)
        );
        assert_eq!(read(r#""\\","b"]"#), (texts(&[r#""\\""#, r#""b""#]), None));
        assert_eq!(read(&format!("1{}]", " ".repeat(100))), (texts(&["1"]), None));
    }

    #[test]
    fn an_element_that_cannot_be_read_does_not_end_the_array() {
        assert_eq!(read("1  2,}]"), (texts(&["1 2", "}"]), None));
        let (elements, broken) = read(r#"1,,"a long string",2,]"#);
        assert_eq!(broken, None);
        let empty = "the element: is empty: the array has a comma too many";
        let expected =
            [Ok("1"), Err(empty), Err("the element: is longer than 12 bytes"), Ok("2"), Err(empty)];
        assert_eq!(
            elements.iter().map(|e| e.as_deref().map_err(String::as_str)).collect::<Vec<_>>(),
            expected
        );
        assert_eq!(read(r#""0123456789","0123456789"]"#).0.iter().filter(|e| e.is_ok()).count(), 2);
    }

    #[test]
    fn an_array_that_ends_too_early_or_too_late_names_the_element() {
        let early =
            |element| Some(format!("element {element}: the body ends before the array does"));
        let late = |element| {
            Some(format!("element {element}: the array has ended before it, but the body goes on"))
        };
        assert_eq!(read(""), (vec![], early(1)));
        assert_eq!(read("1"), (vec![], early(1)));
        assert_eq!(read("1,"), (texts(&["1"]), early(2)));
        assert_eq!(read("1,{\"a\":"), (texts(&["1"]), early(2)));
        assert_eq!(read("] x"), (vec![], late(1)));
        assert_eq!(read("1][2]"), (texts(&["1"]), late(2)));
    }
}
