//! Logits of a peer: binary frames of kind 7, from the asked member of a group to the asking one. A member's description of itself, and the
//! list of its teachers.
//!
//! | bytes | field | |
//! | --- | --- | --- |
//! | 0..16 | header | [`Header`] of kind [`Kind::PeerLogits`], dtype f32; request and policy are those of the states |
//! | 16.. | payload | for each state one number for each action of the member that answers |

use crate::frame::{
    Dtype, Expected, FrameError, HEADER_BYTES, Header, Ids, Kind, first_not_finite, open, read_floats,
};
use crate::message::{ErrorCode, ErrorMessage, MAX_NAME_BYTES};

/// The most members of a group.
pub const MAX_MEMBERS: usize = 64;

/// A member's description of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberInfo {
    /// Its name: a newer session of the same name replaces the older one.
    pub name: String,
    /// Numbers of one channel of its observations, where these are images; 0 where not. A member whose images have more channels sees
    /// zeros in them.
    pub channel: u32,
}

oto_json::json_object! { MemberInfo: open { name, channel = 0 } }

impl MemberInfo {
    pub(crate) fn check(&self) -> Result<(), ErrorMessage> {
        let name = self.name.len();
        if !(1..=MAX_NAME_BYTES).contains(&name) {
            let message = format!("\"member.name\" has 1 to {MAX_NAME_BYTES} bytes, this one has {name}");
            return Err(ErrorMessage::new(ErrorCode::BadMessage, message));
        }
        Ok(())
    }
}

/// A group's answer to a new member.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupInfo {
    /// The number of this session, at least 1. The states that it asks about carry it.
    pub session: u32,
    /// The most states that it may ask about in a second.
    pub states_per_second: f64,
}

oto_json::json_object! { GroupInfo: open { session, states_per_second } }

/// The members that a member may ask now. Later messages replace earlier ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// The members.
    pub teachers: Vec<PeerInfo>,
}

oto_json::json_object! { Peers: open { teachers } }

/// A member that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// The number of its session: the field `policy` of states for it.
    pub session: u32,
    /// Its name.
    pub name: String,
    /// How many actions it chooses from: the width of its logits.
    pub actions: u32,
}

oto_json::json_object! { PeerInfo: open { session, name, actions } }

/// A frame of logits whose sizes and numbers are checked.
#[derive(Clone, Copy, Debug)]
pub struct Logits<'a> {
    header: Header,
    payload: &'a [u8],
}

impl<'a> Logits<'a> {
    /// Checks a frame of at most `max_rows` rows of `actions` numbers, and borrows it.
    ///
    /// # Errors
    /// The first reason to refuse it, in the order of the specification.
    pub fn read(frame: &'a [u8], actions: usize, max_rows: usize) -> Result<Self, FrameError> {
        let (dtype, row_bytes) = (Dtype::F32, 4 * actions);
        let expected = Expected { kind: Kind::PeerLogits, dtype, before: HEADER_BYTES, row_bytes, max_rows };
        let (header, payload) = open(frame, expected)?;
        match first_not_finite(payload, dtype) {
            Some(at) => Err(FrameError::NotFinite { row: at / actions, component: at % actions }),
            None => Ok(Logits { header, payload }),
        }
    }

    /// The numbers of the header.
    pub fn ids(&self) -> Ids {
        self.header.ids
    }

    /// The number of states.
    pub fn rows(&self) -> usize {
        usize::from(self.header.rows)
    }

    /// The numbers `[rows, actions]` into `out`, which is emptied first.
    pub fn values(&self, out: &mut Vec<f32>) {
        out.clear();
        out.resize(self.payload.len() / 4, 0.0);
        read_floats(self.payload, Dtype::F32, out);
    }

    /// The same frame with another request and policy, into `out`, which is emptied first.
    pub fn readdress(&self, ids: Ids, out: &mut Vec<u8>) {
        out.clear();
        Header { ids, ..self.header }.write(out);
        out.extend_from_slice(self.payload);
    }
}

/// Writes logits `[rows, actions]` into `out`, which is emptied first.
///
/// # Errors
/// No rows, more than fit a frame, or a number that is not finite.
pub fn write_logits(ids: Ids, values: &[f32], actions: usize, out: &mut Vec<u8>) -> Result<(), FrameError> {
    let found = values.len() / actions.max(1);
    if found == 0 {
        return Err(FrameError::NoRows);
    }
    let max = usize::from(u16::MAX);
    let rows = u16::try_from(found).map_err(|_| FrameError::TooManyRows { found, max })?;
    if let Some(at) = values.iter().position(|x| !x.is_finite()) {
        return Err(FrameError::NotFinite { row: at / actions, component: at % actions });
    }
    out.clear();
    Header { kind: Kind::PeerLogits, dtype: Dtype::F32, rows, ids }.write(out);
    values.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: Ids = Ids { request: 3, policy: 7, version: 9 };

    #[test]
    fn logits_come_back_and_are_readdressed() {
        let (mut frame, mut out) = (Vec::new(), vec![9.0]);
        write_logits(IDS, &[1.5, -2.0, 0.0, 1e-30], 2, &mut frame).unwrap();
        let read = Logits::read(&frame, 2, 2).unwrap();
        read.values(&mut out);
        assert_eq!((read.ids(), read.rows(), &out[..]), (IDS, 2, &[1.5, -2.0, 0.0, 1e-30][..]));
        let (other, mut again) = (Ids { request: 1, policy: 2, version: 9 }, Vec::new());
        read.readdress(other, &mut again);
        let mut expected = Vec::new();
        write_logits(other, &out, 2, &mut expected).unwrap();
        assert_eq!(again, expected);
    }

    #[test]
    fn frames_that_do_not_fit_are_refused_in_order() {
        let mut good = Vec::new();
        write_logits(IDS, &[1.0, 2.0], 2, &mut good).unwrap();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        let nan = [&good[..20], &f32::NAN.to_le_bytes()].concat();
        for (bytes, reason) in [
            (good[..15].to_vec(), "too_short"),
            (with(0, 9), "unknown_kind"),
            (with(0, 3), "not_supported"),
            (with(0, 8), "not_supported"),
            (with(1, 9), "unknown_dtype"),
            (with(2, 0), "no_rows"),
            (with(0, 1), "wrong_kind"),
            (with(1, 2), "wrong_dtype"),
            (with(2, 2), "too_many_rows"),
            (good[..20].to_vec(), "wrong_length"),
            (nan, "not_finite"),
        ] {
            assert_eq!(Logits::read(&bytes, 2, 1).unwrap_err().name(), reason);
        }
        let refused = |values: &[f32]| write_logits(IDS, values, 2, &mut Vec::new()).unwrap_err().name();
        assert_eq!(refused(&[]), "no_rows");
        assert_eq!(refused(&[0.0, f32::INFINITY]), "not_finite");
        assert_eq!(refused(&vec![0.0; 2 << 16]), "too_many_rows");
    }
}
