//! Values of ours become a text.

use crate::{Json, Number, shown};
use std::collections::VecDeque;
use std::fmt::{self, Write};

/// What can be written as JSON.
pub trait ToJson {
    /// Writes one value.
    fn write(&self, out: &mut Writer);
}

/// What is written as an object, alone or among the fields of another.
pub trait Object: ToJson {
    /// Writes the fields, without the braces.
    fn write_fields(&self, out: &mut Writer);
}

/// Writes a value as a text.
pub fn write<T: ToJson + ?Sized>(value: &T) -> String {
    let mut out = Writer { text: String::new() };
    value.write(&mut out);
    out.text
}

/// A text that grows.
pub struct Writer {
    text: String,
}

impl Writer {
    /// Writes `{`, what `fields` writes, and `}`.
    pub fn object(fields: impl FnOnce(&mut Writer)) -> String {
        let mut out = Writer { text: String::new() };
        out.open('{');
        fields(&mut out);
        out.close('}');
        out.text
    }

    /// Writes one field of an object.
    pub fn field<T: ToJson + ?Sized>(&mut self, name: &str, value: &T) {
        self.key(name);
        value.write(self);
    }

    /// Begins a list or an object.
    pub fn open(&mut self, bracket: char) {
        self.text.push(bracket);
    }

    /// Ends it.
    pub fn close(&mut self, bracket: char) {
        self.text.push(bracket);
    }

    #[inline(never)]
    fn key(&mut self, name: &str) {
        self.next();
        self.string(name);
        self.text.push(':');
    }

    /// A comma, unless it is the first entry: a value never ends with an opening bracket.
    #[inline(never)]
    fn next(&mut self) {
        if !matches!(self.text.as_bytes().last(), Some(b'{' | b'[')) {
            self.text.push(',');
        }
    }

    #[inline(never)]
    fn list<T: ToJson>(&mut self, items: &[T]) {
        self.open('[');
        self.items(items);
        self.close(']');
    }

    fn items<T: ToJson>(&mut self, items: &[T]) {
        for item in items {
            self.next();
            item.write(self);
        }
    }

    #[inline(never)]
    fn string(&mut self, value: &str) {
        self.text.push('"');
        for c in value.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\0'..' ' => self.format(format_args!("\\u{:04x}", c as u32)),
                c => self.text.push(c),
            }
        }
        self.text.push('"');
    }

    #[inline(never)]
    fn format(&mut self, what: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(what);
    }

    fn null(&mut self) {
        self.text.push_str("null");
    }

    #[inline(never)]
    fn unsigned(&mut self, value: u64) {
        self.format(format_args!("{value}"));
    }
}

impl ToJson for Json {
    fn write(&self, out: &mut Writer) {
        match self {
            Json::Null => out.null(),
            Json::Bool(value) => value.write(out),
            Json::Number(Number::Unsigned(value)) => out.unsigned(*value),
            Json::Number(Number::Negative(value)) => out.format(format_args!("{value}")),
            Json::Number(Number::Real(value)) => value.write(out),
            Json::Text(value) => out.string(value),
            Json::List(list) => out.list(list),
            Json::Object(entries) => {
                out.open('{');
                entries.iter().for_each(|(key, value)| out.field(key, value));
                out.close('}');
            }
        }
    }
}

impl ToJson for bool {
    fn write(&self, out: &mut Writer) {
        out.text.push_str(if *self { "true" } else { "false" });
    }
}

macro_rules! unsigned {
    ($($type:ty)*) => {
        $(impl ToJson for $type {
            fn write(&self, out: &mut Writer) {
                out.unsigned(*self as u64);
            }
        })*
    };
}

unsigned! { u8 u16 u32 u64 usize }

/// The shortest text that is read as the same number; `null` for what is no finite number.
macro_rules! real {
    ($($type:ty)*) => {
        $(impl ToJson for $type {
            #[inline(never)]
            fn write(&self, out: &mut Writer) {
                match self.is_finite() {
                    true => out.text.push_str(&shown(self)),
                    false => out.null(),
                }
            }
        })*
    };
}

real! { f32 f64 }

impl ToJson for str {
    fn write(&self, out: &mut Writer) {
        out.string(self);
    }
}

impl ToJson for String {
    fn write(&self, out: &mut Writer) {
        out.string(self);
    }
}

impl<T: ToJson + ?Sized> ToJson for &T {
    fn write(&self, out: &mut Writer) {
        (**self).write(out);
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn write(&self, out: &mut Writer) {
        match self {
            Some(value) => value.write(out),
            None => out.null(),
        }
    }
}

impl<T: ToJson> ToJson for [T] {
    fn write(&self, out: &mut Writer) {
        out.list(self);
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn write(&self, out: &mut Writer) {
        out.list(self);
    }
}

impl<T: ToJson, const N: usize> ToJson for [T; N] {
    fn write(&self, out: &mut Writer) {
        out.list(self);
    }
}

impl<T: ToJson> ToJson for VecDeque<T> {
    fn write(&self, out: &mut Writer) {
        let (front, back) = self.as_slices();
        out.open('[');
        out.items(front);
        out.items(back);
        out.close(']');
    }
}

impl<A: ToJson, B: ToJson> ToJson for (A, B) {
    fn write(&self, out: &mut Writer) {
        out.open('[');
        self.0.write(out);
        out.next();
        self.1.write(out);
        out.close(']');
    }
}
