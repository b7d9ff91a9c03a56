//! Values of ours become a text or a tree.

use crate::{Json, Number, decimal, shown};
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
    let mut out = Writer { text: String::new(), tree: None };
    value.write(&mut out);
    out.text
}

/// Gives a value as a tree, without a text between.
pub fn to_tree<T: ToJson + ?Sized>(value: &T) -> Json {
    tree(|out| value.write(out))
}

/// Gives an object of these fields as a tree.
pub fn object_tree(fields: impl FnOnce(&mut Writer)) -> Json {
    tree(|out| out.braces(fields))
}

fn tree(write: impl FnOnce(&mut Writer)) -> Json {
    let mut out = Writer { text: String::new(), tree: Some(Vec::new()) };
    write(&mut out);
    // A value writes itself once.
    out.tree.and_then(|mut values| values.pop()).unwrap_or(Json::Null)
}

/// A text or a tree that grows.
pub struct Writer {
    text: String,
    /// The open lists and objects of a tree, the outermost first; in the end the whole. None writes a text.
    tree: Option<Vec<Json>>,
}

impl Writer {
    /// Writes `{`, what `fields` writes, and `}`.
    pub fn object(fields: impl FnOnce(&mut Writer)) -> String {
        let mut out = Writer { text: String::new(), tree: None };
        out.braces(fields);
        out.text
    }

    fn braces(&mut self, fields: impl FnOnce(&mut Writer)) {
        self.open('{');
        fields(self);
        self.close('}');
    }

    /// Writes one field of an object.
    pub fn field<T: ToJson + ?Sized>(&mut self, name: &str, value: &T) {
        self.key(name);
        value.write(self);
    }

    /// Begins a list or an object.
    pub fn open(&mut self, bracket: char) {
        match &mut self.tree {
            None => self.text.push(bracket),
            Some(open) if bracket == '[' => open.push(Json::List(Vec::new())),
            Some(open) => open.push(Json::Object(Vec::new())),
        }
    }

    /// Ends it.
    pub fn close(&mut self, bracket: char) {
        match &mut self.tree {
            None => self.text.push(bracket),
            Some(open) => {
                if let Some(value) = open.pop() {
                    add(open, value);
                }
            }
        }
    }

    #[inline(never)]
    fn key(&mut self, name: &str) {
        match &mut self.tree {
            None => {
                self.next();
                self.quoted(name);
                self.text.push(':');
            }
            Some(open) => {
                if let Some(Json::Object(entries)) = open.last_mut() {
                    entries.push((name.into(), Json::Null));
                }
            }
        }
    }

    /// A comma, unless it is the first entry: a value never ends with an opening bracket.
    #[inline(never)]
    fn next(&mut self) {
        if self.tree.is_none() && !matches!(self.text.as_bytes().last(), Some(b'{' | b'[')) {
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
        match &mut self.tree {
            None => self.quoted(value),
            Some(open) => add(open, Json::Text(value.into())),
        }
    }

    fn quoted(&mut self, value: &str) {
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

    /// Writes what is neither a text, a list nor an object.
    #[inline(never)]
    fn leaf(&mut self, value: Json) {
        match (&mut self.tree, value) {
            (Some(open), value) => add(open, value),
            (None, Json::Bool(value)) => self.text.push_str(if value { "true" } else { "false" }),
            (None, Json::Number(Number::Unsigned(value))) => self.format(format_args!("{value}")),
            (None, Json::Number(Number::Negative(value))) => self.format(format_args!("{value}")),
            (None, Json::Number(Number::Real(value))) => self.text.push_str(&shown(&value)),
            (None, _) => self.text.push_str("null"),
        }
    }
}

/// Puts a value into the innermost list or object; the whole stands alone.
fn add(open: &mut Vec<Json>, value: Json) {
    match open.last_mut() {
        Some(Json::Object(entries)) => {
            if let Some((_, last)) = entries.last_mut() {
                *last = value;
            }
        }
        Some(Json::List(list)) => list.push(value),
        _ => open.push(value),
    }
}

impl ToJson for Json {
    fn write(&self, out: &mut Writer) {
        match self {
            Json::Text(value) => out.string(value),
            Json::List(list) => out.list(list),
            Json::Object(entries) => {
                out.braces(|out| entries.iter().for_each(|(key, value)| out.field(key, value)));
            }
            Json::Number(Number::Real(value)) => value.write(out),
            leaf => out.leaf(leaf.clone()),
        }
    }
}

impl ToJson for bool {
    fn write(&self, out: &mut Writer) {
        out.leaf(Json::Bool(*self));
    }
}

macro_rules! unsigned {
    ($($type:ty)*) => {
        $(impl ToJson for $type {
            fn write(&self, out: &mut Writer) {
                out.leaf(Json::Number(Number::Unsigned(*self as u64)));
            }
        })*
    };
}

unsigned! { u8 u16 u32 u64 usize }

/// The shortest text that is read as the same number; `null` for what is no finite number.
impl ToJson for f64 {
    #[inline(never)]
    fn write(&self, out: &mut Writer) {
        out.leaf(if self.is_finite() { Json::Number(Number::Real(*self)) } else { Json::Null });
    }
}

/// A text has the digits that an `f32` needs, and a tree the number of these digits.
impl ToJson for f32 {
    #[inline(never)]
    fn write(&self, out: &mut Writer) {
        match self.is_finite() {
            true if out.tree.is_none() => out.text.push_str(&shown(self)),
            true => decimal::nearest(&shown(self)).write(out),
            false => out.leaf(Json::Null),
        }
    }
}

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
            None => out.leaf(Json::Null),
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
