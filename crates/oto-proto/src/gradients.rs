//! Gradients of an asynchronous worker: binary frames of kind 8, from a worker to the server of the shared agent.
//!
//! | bytes | field | |
//! | --- | --- | --- |
//! | 0..16 | header | [`Header`] of kind [`Kind::Gradients`], one row, dtype f32; its request is the session, its version that of the parameters |
//! | 16.. | payload | one number for each parameter, in the order of `worker.parameters` of `hello` |

use crate::frame::{
    Dtype, Expected, FrameError, HEADER_BYTES, Header, Ids, Kind, first_not_finite, open, read_floats,
};
use crate::message::{ErrorCode, ErrorMessage, MAX_NAME_BYTES};
use crate::weights::MAX_PARAMETERS;

/// The most tensors of a shared agent.
pub const MAX_TENSORS: usize = 256;
/// The most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// A parameter tensor of an agent: its name and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<u32>,
}

oto_json::json_object! { Parameter: open { name, shape } }

/// What a worker says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its name: a newer session of the same name replaces the older one.
    pub name: String,
    /// The parameters of its agent, in the order of gradients.
    pub parameters: Vec<Parameter>,
}

oto_json::json_object! { WorkerInfo: open { name, parameters } }

impl WorkerInfo {
    pub(crate) fn check(&self) -> Result<(), ErrorMessage> {
        let refuse = |message: String| Err(ErrorMessage::new(ErrorCode::BadMessage, message));
        let (name, tensors) = (self.name.len(), self.parameters.len());
        if !(1..=MAX_NAME_BYTES).contains(&name) {
            return refuse(format!("\"worker.name\" has 1 to {MAX_NAME_BYTES} bytes, this one has {name}"));
        }
        if !(1..=MAX_TENSORS).contains(&tensors) {
            return refuse(format!(
                "\"worker.parameters\" has 1 to {MAX_TENSORS} tensors, this one has {tensors}"
            ));
        }
        let count = numbers(&self.parameters);
        if count.is_none_or(|count| count == 0) {
            return refuse(format!(
                "\"worker.parameters\" has 1 to {MAX_PARAMETERS} numbers in all, this one has other ones"
            ));
        }
        Ok(())
    }
}

/// Numbers of all these tensors; none if they are too many.
pub fn numbers(parameters: &[Parameter]) -> Option<usize> {
    let mut all = 0;
    for parameter in parameters {
        if parameter.shape.len() > MAX_RANK {
            return None;
        }
        let sizes = parameter.shape.iter().map(|size| u64::from(*size));
        let count = sizes.into_iter().try_fold(1u64, |product, size| product.checked_mul(size))?;
        all = count.checked_add(all).filter(|all| *all <= MAX_PARAMETERS as u64)?;
    }
    usize::try_from(all).ok()
}

/// A frame of gradients whose sizes and numbers are checked.
#[derive(Clone, Copy, Debug)]
pub struct Gradients<'a> {
    ids: Ids,
    payload: &'a [u8],
}

impl<'a> Gradients<'a> {
    /// Checks a frame of gradients against the agent's number of parameters, and borrows it.
    ///
    /// # Errors
    /// The first reason to refuse it, in the order of the specification.
    pub fn read(frame: &'a [u8], parameters: usize) -> Result<Self, FrameError> {
        let (dtype, row_bytes) = (Dtype::F32, 4 * parameters);
        let expected =
            Expected { kind: Kind::Gradients, dtype, before: HEADER_BYTES, row_bytes, max_rows: 1 };
        let (header, payload) = open(frame, expected)?;
        match first_not_finite(payload, dtype) {
            Some(component) => Err(FrameError::NotFinite { row: 0, component }),
            None => Ok(Gradients { ids: header.ids, payload }),
        }
    }

    /// The session, the policy, and the version of the parameters.
    pub fn ids(&self) -> Ids {
        self.ids
    }

    /// The numbers into `out`, which is emptied first.
    pub fn values(&self, out: &mut Vec<f32>) {
        out.clear();
        out.resize(self.payload.len() / 4, 0.0);
        read_floats(self.payload, Dtype::F32, out);
    }
}

/// Writes gradients into `out`, which is emptied first.
///
/// # Errors
/// If a number is not finite.
pub fn write_gradients(ids: Ids, values: &[f32], out: &mut Vec<u8>) -> Result<(), FrameError> {
    if let Some(component) = values.iter().position(|x| !x.is_finite()) {
        return Err(FrameError::NotFinite { row: 0, component });
    }
    out.clear();
    Header { kind: Kind::Gradients, dtype: Dtype::F32, rows: 1, ids }.write(out);
    values.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Ids = Ids { request: 3, policy: 7, version: 9 };

    fn frame(values: &[f32]) -> Vec<u8> {
        let mut out = Vec::new();
        write_gradients(IDS, values, &mut out).unwrap();
        out
    }

    #[test]
    fn gradients_come_back() {
        let (values, mut out) = ([1.5, -2.0, 1e-30], vec![9.0]);
        let bytes = frame(&values);
        let read = Gradients::read(&bytes, 3).unwrap();
        read.values(&mut out);
        assert_eq!((read.ids(), &out[..], bytes.len()), (IDS, &values[..], 28));
        assert_eq!(write_gradients(IDS, &[0.0, f32::NAN], &mut Vec::new()).unwrap_err().name(), "not_finite");
    }

    #[test]
    fn frames_that_do_not_fit_are_refused_in_order() {
        let good = frame(&[1.0, 2.0]);
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        let nan = [&good[..16], &f32::NAN.to_le_bytes(), &f32::INFINITY.to_le_bytes()].concat();
        for (bytes, reason) in [
            (good[..15].to_vec(), "too_short"),
            (with(0, 9), "unknown_kind"),
            (with(0, 7), "not_supported"),
            (with(1, 9), "unknown_dtype"),
            (with(2, 0), "no_rows"),
            (with(0, 5), "wrong_kind"),
            (with(1, 2), "wrong_dtype"),
            (with(2, 2), "too_many_rows"),
            (good[..20].to_vec(), "wrong_length"),
            ([&good[..], &[0]].concat(), "wrong_length"),
            (nan, "not_finite"),
        ] {
            assert_eq!(Gradients::read(&bytes, 2).unwrap_err().name(), reason);
        }
    }

    #[test]
    fn sizes_are_counted_without_overflow() {
        let of = |shapes: &[&[u32]]| {
            let one = |shape: &&[u32]| Parameter { name: "p".into(), shape: shape.to_vec() };
            numbers(&shapes.iter().map(one).collect::<Vec<_>>())
        };
        assert_eq!(of(&[&[3, 4], &[], &[2]]), Some(15));
        assert_eq!(of(&[&[u32::MAX, u32::MAX, u32::MAX]]), None);
        assert_eq!(of(&[&[1 << 24], &[1]]), None);
        assert_eq!(of(&[&[1; 9]]), None);
    }
}
