//! A tree becomes a value of ours.

use crate::{Json, JsonError, Number, parse};
use std::fmt::{self, Write};

/// The error in one word: it is passed through every function below.
pub type Failure = Box<JsonError>;

/// What can be read from JSON.
pub trait FromJson: Sized {
    /// Reads the value at a place.
    ///
    /// # Errors
    /// What does not fit, and where.
    fn from_json(at: At<'_>) -> Result<Self, Failure>;

    /// What a field is that is not there; none where it has to be.
    fn absent() -> Option<Self> {
        None
    }
}

/// Reads a value of this type from a text.
///
/// # Errors
/// No JSON, a key that is there twice, a value that does not fit.
pub fn read<T: FromJson>(text: &str) -> Result<T, JsonError> {
    from_tree(&parse(text)?)
}

/// Reads a value of this type from a tree.
///
/// # Errors
/// A value that does not fit.
pub fn from_tree<T: FromJson>(tree: &Json) -> Result<T, JsonError> {
    T::from_json(At { value: tree, path: &Path::Root }).map_err(|error| *error)
}

/// The way from the whole to a place in it.
#[derive(Clone, Copy)]
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Path<'_> {
    fn write(&self, to: &mut String) {
        match self {
            Path::Root => {}
            Path::Key(before, key) => {
                before.write(to);
                if !to.is_empty() {
                    to.push('.');
                }
                to.push_str(key);
            }
            Path::Index(before, index) => {
                before.write(to);
                // Writing to a String cannot fail.
                let _ = write!(to, "[{index}]");
            }
        }
    }

    #[inline(never)]
    fn error(&self, message: String) -> Failure {
        let mut path = String::new();
        self.write(&mut path);
        Box::new(JsonError { path, message })
    }
}

/// A value and where it is.
#[derive(Clone, Copy)]
pub struct At<'a> {
    /// The value.
    pub value: &'a Json,
    path: &'a Path<'a>,
}

impl<'a> At<'a> {
    /// An error here.
    #[inline(never)]
    pub fn wrong(self, message: &dyn fmt::Display) -> Failure {
        self.path.error(message.to_string())
    }

    /// The same place with another value.
    pub fn with<'b>(self, value: &'b Json) -> At<'b>
    where
        'a: 'b,
    {
        At { value, path: self.path }
    }

    /// That something else was expected here.
    #[inline(never)]
    pub fn expected(self, what: &str) -> Failure {
        let mut message = format!("expected {what}, got ");
        match self.value {
            Json::Null => message.push_str("null"),
            Json::Bool(value) => message.push_str(if *value { "true" } else { "false" }),
            Json::Number(_) => message.push_str(&crate::write(self.value)),
            Json::Text(text) => {
                message.push('"');
                message.extend(text.chars().take(64));
                message.push('"');
            }
            Json::List(_) => message.push_str("a list"),
            Json::Object(_) => message.push_str("an object"),
        }
        self.path.error(message)
    }

    /// The fields of an object.
    ///
    /// # Errors
    /// Something else is here.
    pub fn fields(self) -> Result<Fields<'a>, Failure> {
        match self.value {
            Json::Object(entries) => Ok(Fields { entries, path: self.path }),
            _ => Err(self.expected("an object")),
        }
    }

    /// The entries of a list.
    ///
    /// # Errors
    /// Something else is here.
    #[inline(never)]
    pub fn list(self) -> Result<&'a [Json], Failure> {
        match self.value {
            Json::List(list) => Ok(list),
            _ => Err(self.expected("a list")),
        }
    }

    /// Reads one entry of the list that is here.
    fn entry<T: FromJson>(self, index: usize, value: &Json) -> Result<T, Failure> {
        T::from_json(At { value, path: &Path::Index(self.path, index) })
    }

    /// The text.
    ///
    /// # Errors
    /// Something else is here.
    #[inline(never)]
    pub fn text(self) -> Result<&'a str, Failure> {
        match self.value {
            Json::Text(text) => Ok(text),
            _ => Err(self.expected("a text")),
        }
    }

    /// Which of these names is here.
    ///
    /// # Errors
    /// None of them.
    #[inline(never)]
    pub fn one_of(self, names: &[&str]) -> Result<usize, Failure> {
        let text = self.text()?;
        let index = names.iter().position(|name| *name == text);
        index.ok_or_else(|| self.expected(&listed(names)))
    }

    #[inline(never)]
    fn unsigned(self, max: u64) -> Result<u64, Failure> {
        match self.value {
            Json::Number(Number::Unsigned(value)) if *value <= max => Ok(*value),
            _ => Err(self.expected(&format!("a whole number from 0 to {max}"))),
        }
    }

    #[inline(never)]
    fn real(self) -> Result<f64, Failure> {
        match self.value {
            Json::Number(Number::Unsigned(value)) => Ok(*value as f64),
            Json::Number(Number::Negative(value)) => Ok(*value as f64),
            Json::Number(Number::Real(value)) => Ok(*value),
            _ => Err(self.expected("a number")),
        }
    }
}

/// `` `a`, `b` or `c` ``.
fn listed(names: &[&str]) -> String {
    let mut text = String::new();
    for (i, name) in names.iter().enumerate() {
        text.push_str(match i {
            0 => "`",
            i if i + 1 == names.len() => " or `",
            _ => ", `",
        });
        text.push_str(name);
        text.push('`');
    }
    text
}

/// The fields of an object and where it is.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    entries: &'a [(String, Json)],
    path: &'a Path<'a>,
}

impl<'a> Fields<'a> {
    #[inline(never)]
    fn find(&self, name: &str) -> Option<&'a Json> {
        self.entries.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// A field's value, and the way to it.
    #[inline(never)]
    fn given<'b>(&'b self, name: &'b str) -> Option<(&'a Json, Path<'b>)> {
        Some((self.find(name)?, Path::Key(self.path, name)))
    }

    /// Reads a field.
    ///
    /// # Errors
    /// It is missing, or does not fit.
    pub fn get<T: FromJson>(&self, name: &str) -> Result<T, Failure> {
        match self.given(name) {
            Some((value, path)) => T::from_json(At { value, path: &path }),
            None => T::absent().ok_or_else(|| self.missing(name)),
        }
    }

    /// Reads a field that may be left out.
    ///
    /// # Errors
    /// It does not fit.
    pub fn get_or<T: FromJson>(&self, name: &str, default: T) -> Result<T, Failure> {
        match self.given(name) {
            Some((value, path)) => T::from_json(At { value, path: &path }),
            None => Ok(default),
        }
    }

    /// Puts a field where it belongs; what is there stays where the field is left out.
    ///
    /// # Errors
    /// It does not fit.
    #[inline(never)]
    pub fn put<T: FromJson>(&self, name: &str, to: &mut T) -> Result<(), Failure> {
        if let Some((value, path)) = self.given(name) {
            *to = T::from_json(At { value, path: &path })?;
        }
        Ok(())
    }

    /// Whether there is such a field.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// An error at a field.
    #[inline(never)]
    pub fn wrong(&self, name: &str, message: &dyn fmt::Display) -> Failure {
        Path::Key(self.path, name).error(message.to_string())
    }

    #[inline(never)]
    fn missing(&self, name: &str) -> Failure {
        self.path.error(format!("missing field `{name}`"))
    }

    /// Checks that there are no others.
    ///
    /// # Errors
    /// Names the first one that is none of these.
    #[inline(never)]
    pub fn only(&self, names: &[&str]) -> Result<(), Failure> {
        match self.entries.iter().find(|(key, _)| !names.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, _)) => {
                let message = format!("unknown field, expected {}", listed(names));
                Err(Path::Key(self.path, key).error(message))
            }
        }
    }

    /// Which of these names a field holds.
    ///
    /// # Errors
    /// It is missing, or holds none of them.
    #[inline(never)]
    pub fn tag(&self, field: &str, names: &[&str]) -> Result<usize, Failure> {
        let value = self.find(field).ok_or_else(|| self.missing(field))?;
        At { value, path: &Path::Key(self.path, field) }.one_of(names)
    }
}

impl FromJson for Json {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        Ok(at.value.clone())
    }
}

impl FromJson for bool {
    #[inline(never)]
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        match at.value {
            Json::Bool(value) => Ok(*value),
            _ => Err(at.expected("true or false")),
        }
    }
}

macro_rules! unsigned {
    ($($type:ty)*) => {
        $(impl FromJson for $type {
            fn from_json(at: At<'_>) -> Result<Self, Failure> {
                // It fits: that was asked for.
                at.unsigned(<$type>::MAX as u64).map(|value| value as $type)
            }
        })*
    };
}

unsigned! { u8 u16 u32 u64 usize }

impl FromJson for f64 {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        at.real()
    }
}

impl FromJson for f32 {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let value = at.real()? as f32;
        if value.is_finite() { Ok(value) } else { Err(at.wrong(&"number out of range")) }
    }
}

impl FromJson for String {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        at.text().map(Into::into)
    }
}

impl<T: FromJson> FromJson for Option<T> {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        match at.value {
            Json::Null => Ok(None),
            _ => T::from_json(at).map(Some),
        }
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    #[inline(never)]
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let list = at.list()?;
        let mut values = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            values.push(at.entry(index, value)?);
        }
        Ok(values)
    }
}

impl<T: FromJson, const N: usize> FromJson for [T; N] {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        let values = Vec::from_json(at)?;
        let found = values.len();
        values.try_into().map_err(|_| at.wrong(&format_args!("expected {N} entries, got {found}")))
    }
}

impl<A: FromJson, B: FromJson> FromJson for (A, B) {
    fn from_json(at: At<'_>) -> Result<Self, Failure> {
        match at.list()? {
            [a, b] => Ok((at.entry(0, a)?, at.entry(1, b)?)),
            list => Err(at.wrong(&format_args!("expected 2 entries, got {}", list.len()))),
        }
    }
}
