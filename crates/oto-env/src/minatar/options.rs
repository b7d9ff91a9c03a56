//! Options behind an ID: `MinAtar/Breakout-v1?sticky_action_prob=0&images=true`.

use super::{IDS, KINDS, Kind};
use crate::EnvError;

/// What an environment is made from, beside its game.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Probability in a step that the last action is taken again.
    pub sticky_action_prob: f64,
    /// The game becomes harder with time, where it can.
    pub difficulty_ramping: bool,
    /// Steps after which an episode is truncated; 0: never. The package has no limit, and a game may last for ever.
    pub max_steps: u32,
    /// Observations are images for a convolution, `[channels, 10, 10]` of 0 and 255, instead of `[10, 10, channels]` of 0 and 1.
    pub images: bool,
    /// Channels of an observation, of which those beyond the game's own are 0; 0: the game's own alone.
    pub channels: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            sticky_action_prob: 0.1,
            difficulty_ramping: true,
            max_steps: 100_000,
            images: false,
            channels: 0,
        }
    }
}

/// The channels of the game that has most.
const MOST_CHANNELS: usize = 10;

/// Options behind an ID, each with its values.
pub const OPTIONS: &[(&str, &str)] = &[
    (
        "sticky_action_prob",
        "a number from 0 to 1 (default 0.1): the probability that the last action is taken again",
    ),
    ("difficulty_ramping", "true (default) or false: the game becomes harder with time"),
    ("max_steps", "a whole number (default 100000): the steps of an episode; 0: no limit"),
    ("images", "true or false (default): images of 0 and 255 for a convolution, channels first"),
    (
        "channels",
        "a whole number up to 10, at least the game's own: the number of channels of an observation, the surplus ones are 0",
    ),
];

/// A game, its version's actions and its options. `None` for an ID of another environment.
pub(super) fn parse(id: &str) -> Option<Result<(&'static Kind, bool, Options), EnvError>> {
    let base = crate::base_id(id);
    if !IDS.contains(&base) {
        return None;
    }
    let name = base.strip_prefix("MinAtar/")?;
    let (name, minimal) = (&name[..name.len() - 3], name.ends_with('1'));
    let kind = KINDS.iter().find(|kind| kind.name == name)?;
    let text = id[base.len()..].trim_start_matches('?');
    let read = text.split('&').filter(|part| !part.is_empty()).try_fold(Options::default(), Options::with);
    Some(match read {
        Ok(options) if options.channels != 0 && options.channels < kind.channels => Err(EnvError::Option {
            id: base.into(),
            reason: format!(
                "channels: expected {} to {MOST_CHANNELS}; got {}",
                kind.channels, options.channels
            ),
        }),
        Ok(options) => Ok((kind, minimal, options)),
        Err(reason) => Err(EnvError::Option { id: base.into(), reason }),
    })
}

impl Options {
    fn with(mut self, part: &str) -> Result<Self, String> {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let known = || OPTIONS.iter().find(|(known, _)| *known == name);
        let short = |text: &str| text.chars().take(64).collect::<String>();
        let wrong = || match known() {
            Some((_, values)) => format!("{name}: expected {values}; got {:?}", short(value)),
            None => {
                let names: Vec<_> = OPTIONS.iter().map(|(name, _)| *name).collect();
                format!("{:?}: expected one of {}", short(name), names.join(", "))
            }
        };
        let flag = || value.parse::<bool>().map_err(|_| wrong());
        match name {
            "sticky_action_prob" => {
                let number = value.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
                self.sticky_action_prob = number.ok_or_else(wrong)?;
            }
            "difficulty_ramping" => self.difficulty_ramping = flag()?,
            "max_steps" => self.max_steps = value.parse().map_err(|_| wrong())?,
            "images" => self.images = flag()?,
            "channels" => {
                let number =
                    value.parse::<usize>().ok().filter(|number| (1..=MOST_CHANNELS).contains(number));
                self.channels = number.ok_or_else(wrong)?;
            }
            _ => return Err(wrong()),
        }
        Ok(self)
    }
}
