//! One recorded loss term: its inputs, read from JSON with their shapes checked, and the numbers that it must give.
//!
//! Recording panics on shapes that do not fit, so all that comes from a file is checked here first. Axes have letters: the
//! first array with an axis `B` says how long it is, and all later ones must agree.

use crate::array::{Array, read_array};
use oto_graph::{Program, Tensor, Trace};
use serde_json::Value;
use std::collections::BTreeMap;

/// Why a case cannot be recorded.
pub(crate) enum TermError {
    Unsupported(String),
    Failed(String),
}

pub(crate) struct Term<'t, 'j> {
    trace: &'t Trace,
    json: &'j Value,
    /// `1` is always one long, `2` two.
    axes: BTreeMap<char, usize>,
    /// The values of the program's inputs, in its order.
    pub inputs: Vec<Vec<f64>>,
    /// What the program's outputs must be, in its order.
    pub expected: Vec<Expected<'t>>,
    /// What was computed without the program.
    pub plain: Vec<Plain>,
}

/// A result of plain numbers and the reference for it.
pub(crate) struct Plain {
    /// Where in the file the reference stands.
    pub path: String,
    pub values: Vec<f64>,
    pub got: Vec<f64>,
}

/// A recorded result and the reference for it.
pub(crate) struct Expected<'t> {
    /// Where in the file the reference stands, such as `terms.base`.
    pub path: String,
    pub values: Vec<f64>,
    tensor: Tensor<'t>,
}

impl<'t, 'j> Term<'t, 'j> {
    pub fn new(trace: &'t Trace, json: &'j Value) -> Self {
        let axes = BTreeMap::from([('1', 1), ('2', 2)]);
        Self { trace, json, axes, inputs: Vec::new(), expected: Vec::new(), plain: Vec::new() }
    }

    /// The program of all that was recorded.
    pub fn program(&self) -> Program {
        let outputs: Vec<_> = self.expected.iter().map(|e| (e.path.as_str(), e.tensor)).collect();
        self.trace.finish(&[], &outputs)
    }

    /// Whether the file has something at `path`.
    pub fn has(&self, path: &str) -> bool {
        self.array(path).is_ok()
    }

    /// One number that is not part of the program.
    pub fn value(&self, key: &str) -> Result<f64, TermError> {
        let array = self.array(key)?;
        if array.shape.is_empty() {
            Ok(array.values[0])
        } else {
            Err(failed(format!("{key} is not one number")))
        }
    }

    /// An input with one axis for each letter; without letters one number.
    pub fn input(&mut self, key: &str, axes: &str) -> Result<Tensor<'t>, TermError> {
        let array = self.shaped(key, axes)?;
        Ok(self.data(key, &array.shape, array.values))
    }

    /// An input of any shape.
    pub fn any_input(&mut self, key: &str) -> Result<Tensor<'t>, TermError> {
        let Array { shape, values } = self.array(key)?;
        Ok(self.data(key, &shape, values))
    }

    /// Numbers that are not part of the program.
    pub fn numbers(&mut self, key: &str, axes: &str) -> Result<Vec<f64>, TermError> {
        Ok(self.shaped(key, axes)?.values)
    }

    /// An input of whole numbers below the length of axis `below`.
    pub fn index(&mut self, key: &str, axes: &str, below: char) -> Result<Tensor<'t>, TermError> {
        let array = self.indices(key, axes, below)?;
        Ok(self.data(key, &array.shape, array.values))
    }

    /// As [`Term::index`], with an input for each row.
    pub fn index_rows(&mut self, key: &str, axes: &str, below: char) -> Result<Vec<Tensor<'t>>, TermError> {
        let array = self.indices(key, axes, below)?;
        Ok(self.rows(key, &array))
    }

    /// An input of zeros and ones.
    pub fn mask(&mut self, key: &str, axes: &str) -> Result<Tensor<'t>, TermError> {
        let array = self.zeros_and_ones(key, axes)?;
        Ok(self.data(key, &array.shape, array.values))
    }

    /// As [`Term::mask`], with an input for each row.
    pub fn mask_rows(&mut self, key: &str, axes: &str) -> Result<Vec<Tensor<'t>>, TermError> {
        let array = self.zeros_and_ones(key, axes)?;
        Ok(self.rows(key, &array))
    }

    /// The reference at `path` (keys and list positions, with dots between) is what `tensor` must be.
    pub fn expect(&mut self, path: &str, tensor: Tensor<'t>) -> Result<(), TermError> {
        let Array { shape, values } = self.array(path)?;
        if shape != tensor.shape() {
            return Err(failed(format!("{path} has the shape {shape:?}, expected {:?}", tensor.shape())));
        }
        self.expected.push(Expected { path: path.into(), values, tensor });
        Ok(())
    }

    /// As [`Term::expect`], but for the entries that the list at `ties` names by their indices: a derivative is a convention there.
    pub fn expect_but(&mut self, path: &str, tensor: Tensor<'t>, ties: &str) -> Result<(), TermError> {
        let shape = tensor.shape();
        let mut keep = vec![1.0; shape.iter().product()];
        let mut entry = 0;
        while self.has(&format!("{ties}.{entry}")) {
            let index = self.array(&format!("{ties}.{entry}"))?.values;
            let inside = index.len() == shape.len()
                && index.iter().zip(&shape).all(|(i, n)| i.fract() == 0.0 && (0.0..*n as f64).contains(i));
            if !inside {
                return Err(failed(format!("{ties}.{entry} is no place of the shape {shape:?}")));
            }
            keep[index.iter().zip(&shape).fold(0, |at, (i, n)| at * n + *i as usize)] = 0.0;
            entry += 1;
        }
        let kept = self.data(&format!("{path} kept"), &shape, keep.clone());
        self.expect(path, tensor * kept)?;
        let values = &mut self.expected.last_mut().expect("just added").values;
        values.iter_mut().zip(keep).for_each(|(value, keep)| *value *= keep);
        Ok(())
    }

    /// As [`Term::expect`], for plain numbers.
    pub fn plain(&mut self, path: &str, got: &[f64]) -> Result<(), TermError> {
        let values = self.array(path)?.values;
        if values.len() != got.len() {
            return Err(failed(format!("{path} holds {} numbers, expected {}", values.len(), got.len())));
        }
        self.plain.push(Plain { path: path.into(), values, got: got.to_vec() });
        Ok(())
    }

    fn data(&mut self, name: &str, shape: &[usize], values: Vec<f64>) -> Tensor<'t> {
        self.inputs.push(values);
        self.trace.data(name, shape)
    }

    fn rows(&mut self, key: &str, array: &Array) -> Vec<Tensor<'t>> {
        let shape = &array.shape[1..];
        let rows = array.values.chunks_exact(shape.iter().product());
        rows.enumerate().map(|(i, row)| self.data(&format!("{key}.{i}"), shape, row.to_vec())).collect()
    }

    fn indices(&mut self, key: &str, axes: &str, below: char) -> Result<Array, TermError> {
        let array = self.shaped(key, axes)?;
        let limit =
            *self.axes.get(&below).ok_or_else(|| failed(format!("{key} comes before its axis {below}")))?;
        match array.values.iter().find(|&&x| !(x.fract() == 0.0 && (0.0..limit as f64).contains(&x))) {
            Some(bad) => {
                Err(failed(format!("{key} holds {bad}, expected whole numbers from 0 to {}", limit - 1)))
            }
            None => Ok(array),
        }
    }

    fn zeros_and_ones(&mut self, key: &str, axes: &str) -> Result<Array, TermError> {
        let array = self.shaped(key, axes)?;
        match array.values.iter().find(|&&x| x != 0.0 && x != 1.0) {
            Some(bad) => Err(failed(format!("{key} holds {bad}, expected zeros and ones"))),
            None => Ok(array),
        }
    }

    fn shaped(&mut self, key: &str, axes: &str) -> Result<Array, TermError> {
        let array = self.array(key)?;
        let misfit = || failed(format!("{key} has the shape {:?}, expected the axes {axes:?}", array.shape));
        if array.shape.len() != axes.chars().count() {
            return Err(misfit());
        }
        for (axis, &length) in axes.chars().zip(&array.shape) {
            let agreed = *self.axes.entry(axis).or_insert(length);
            if agreed != length {
                let reason = format!("{key} has the shape {:?}, expected {agreed} along {axis}", array.shape);
                return Err(failed(reason));
            }
        }
        Ok(array)
    }

    fn array(&self, path: &str) -> Result<Array, TermError> {
        let step = |value: &'j Value, part: &str| match value {
            Value::Array(list) => list.get(part.parse::<usize>().ok()?),
            value => value.get(part),
        };
        let value = path.split('.').try_fold(self.json, step);
        let value = value.ok_or_else(|| failed(format!("{path} is missing")))?;
        read_array(value).map_err(|reason| failed(format!("{path} {reason}")))
    }
}

fn failed(reason: String) -> TermError {
    TermError::Failed(reason)
}
