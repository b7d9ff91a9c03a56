//! A JSON text (RFC 8259) becomes a tree. Keys are unique, at most [`MAX_KEYS`] in an object; lists and objects lie at most
//! [`MAX_DEPTH`] deep.

use crate::decimal;
use crate::read::Failure;
use crate::{Json, JsonError, Number};

/// How deep lists and objects may lie in each other: this reader calls itself for each.
const MAX_DEPTH: usize = 128;

/// How many keys an object may have: each is compared with all before it.
const MAX_KEYS: usize = 1024;

/// Reads a text as a tree.
///
/// # Errors
/// No JSON, a key that is there twice, or more keys or depth than a text of ours has; says where.
pub fn parse(text: &str) -> Result<Json, JsonError> {
    let mut parser = Parser { text, at: 0, depth: 0 };
    let read = parser.value().and_then(|value| match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.wrong("expected the end of the text")),
    });
    read.map_err(|error| *error)
}

struct Parser<'a> {
    text: &'a str,
    /// The next byte.
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// An error at the next byte.
    #[inline(never)]
    fn wrong(&self, message: &str) -> Failure {
        let before = &self.text.as_bytes()[..self.at.min(self.text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        let message = format!("{message} at line {line} column {column}");
        Box::new(JsonError { path: String::new(), message })
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is no white space.
    #[inline(never)]
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    /// Takes a word; false, and nothing taken, where something else comes.
    fn take(&mut self, word: &str) -> bool {
        let there = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        if there {
            self.at += word.len();
        }
        there
    }

    fn value(&mut self) -> Result<Json, Failure> {
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::list),
            Some(b'"') => self.string().map(Json::Text),
            Some(b'-' | b'0'..=b'9') => self.number().map(Json::Number),
            _ if self.take("null") => Ok(Json::Null),
            _ if self.take("true") => Ok(Json::Bool(true)),
            _ if self.take("false") => Ok(Json::Bool(false)),
            _ => Err(self.wrong("expected a value")),
        }
    }

    fn nested(&mut self, inside: fn(&mut Self) -> Result<Json, Failure>) -> Result<Json, Failure> {
        if self.depth == MAX_DEPTH {
            return Err(self.wrong("too many lists and objects in each other"));
        }
        self.depth += 1;
        self.at += 1;
        let value = inside(self);
        self.depth -= 1;
        value
    }

    fn list(&mut self) -> Result<Json, Failure> {
        let mut list = Vec::new();
        while self.another(b']', list.is_empty())? {
            list.push(self.value()?);
        }
        Ok(Json::List(list))
    }

    fn object(&mut self) -> Result<Json, Failure> {
        let mut entries: Vec<(String, Json)> = Vec::new();
        while self.another(b'}', entries.is_empty())? {
            if self.peek() != Some(b'"') {
                return Err(self.wrong("expected a key"));
            }
            if entries.len() == MAX_KEYS {
                return Err(self.wrong("too many keys in an object"));
            }
            let key = self.string()?;
            if entries.iter().any(|(name, _)| *name == key) {
                return Err(self.wrong(&format!("duplicate field `{key}`")));
            }
            if self.peek() != Some(b':') {
                return Err(self.wrong("expected \":\""));
            }
            self.at += 1;
            entries.push((key, self.value()?));
        }
        Ok(Json::Object(entries))
    }

    /// Whether another entry comes; takes the comma before it, or the end.
    #[inline(never)]
    fn another(&mut self, end: u8, first: bool) -> Result<bool, Failure> {
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            _ if first => Ok(true),
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            _ => Err(self.wrong("expected a comma or the end of what is open")),
        }
    }

    fn string(&mut self) -> Result<String, Failure> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let from = self.at;
            while self.byte().is_some_and(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
                self.at += 1;
            }
            string.push_str(self.text.get(from..self.at).unwrap_or_default());
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => string.push(self.escape()?),
                Some(_) => return Err(self.wrong("a control character in a text")),
                None => return Err(self.wrong("expected the end of a text")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Failure> {
        self.at += 1;
        let simple = match self.byte() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.wrong("no such escape")),
        };
        self.at += 1;
        Ok(simple)
    }

    fn unicode(&mut self) -> Result<char, Failure> {
        let mut code = self.hex()?;
        if let 0xd800..0xdc00 = code
            && self.take("\\")
            && self.byte() == Some(b'u')
        {
            let low = self.hex()?;
            if let 0xdc00..0xe000 = low {
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
            }
        }
        char::from_u32(code).ok_or_else(|| self.wrong("half a character"))
    }

    /// The four digits after a `u`.
    fn hex(&mut self) -> Result<u32, Failure> {
        self.at += 1;
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.byte().and_then(|byte| char::from(byte).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| self.wrong("expected four hexadecimal digits"))?;
            self.at += 1;
        }
        Ok(code)
    }

    fn number(&mut self) -> Result<Number, Failure> {
        let from = self.at;
        let negative = self.take("-");
        if !self.take("0") {
            self.digits()?;
        }
        let mut whole = true;
        if self.take(".") {
            whole = false;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            whole = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.text.get(from..self.at).unwrap_or_default();
        // -0 is a real number: there is no whole one.
        if whole
            && negative
            && text != "-0"
            && let Ok(value) = text.parse()
        {
            return Ok(Number::Negative(value));
        }
        if whole
            && !negative
            && let Ok(value) = text.parse()
        {
            return Ok(Number::Unsigned(value));
        }
        match decimal::nearest(text) {
            value if value.is_finite() => Ok(Number::Real(value)),
            _ => Err(self.wrong("number out of range")),
        }
    }

    fn digits(&mut self) -> Result<(), Failure> {
        let from = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if from == self.at { Err(self.wrong("expected a digit")) } else { Ok(()) }
    }
}
