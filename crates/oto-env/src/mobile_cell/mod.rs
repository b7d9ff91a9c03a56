//! MobileCell-LTE-v0 and MobileCell-5G-v0: a device walks among seven base stations and chooses which to be connected to.
//!
//! Action 0 changes nothing, `k` from 1 to 7 toggles the connection to station `k - 1`. Several connections at a time are
//! allowed and cost nothing; a station can be connected to, and stays so, while its signal-to-noise ratio is above a
//! threshold. The reward is the utility of the data rate, in [-1, 1]. An episode is truncated after 100 steps.
//!
//! State: position x, y (m), waypoint x, y (the position itself while there is none), connected to station 0 to 6 (0 or 1),
//! utility of the last step. Observation: the connections, the stations' signal-to-noise ratios divided by the largest,
//! the utility.
//!
//! Source: mobile-env 2.1 (Schneider et al., NOMS 2022), scenario "medium" with its first device alone. The radio constants
//! are those of OTO, section VI-B (Zeng et al., TPDS 2024): LTE band 33 and 5G band n77 with six times the speed.
//! `reset(seed)` draws what a new mobile-env with `"seed": seed` in its configuration draws.

mod map;
mod oracle;
mod rules;

pub use map::{CellMap, MapStation};
pub use oracle::{Plan, best_plan};
pub use rules::Rule;

use crate::classic::{Dynamics, Transition};
use crate::rng::Rng;
use crate::space::within;
use crate::{ClassicEnvironment, EnvError, Space};
use std::marker::PhantomData;

/// How many base stations there are.
pub const STATIONS: usize = 7;

/// Where the base stations stand, x and y in metres.
pub const STATION_POSITIONS: [[f64; 2]; STATIONS] = [
    [95.0, 240.0],
    [100.0, 140.0],
    [105.0, 60.0],
    [35.0, 200.0],
    [40.0, 95.0],
    [165.0, 220.0],
    [160.0, 110.0],
];

/// The side of the square in which the device moves, in metres. Three stations stand beyond its upper edge: the scenario's
/// map is 300 m high, its movement model is not told so.
pub const MOVEMENT_SIDE: f64 = 200.0;

/// A connection needs a larger signal-to-noise ratio than this.
pub const SNR_THRESHOLD: f64 = 2e-8;

const STEPS: u32 = 100;
const TRANSMIT_POWER_DBM: f64 = 30.0;
const STATION_HEIGHT: f64 = 50.0;
const DEVICE_HEIGHT: f64 = 1.5;
const NOISE: f64 = 1e-9;
/// Utilities lie in [-20, 20] before they are scaled.
const LARGEST_UTILITY: f64 = 20.0;
/// mobile-env gives each of its parts a seed of its own; this is the movement's distance from the configured seed.
const MOVEMENT_SEED: u64 = 4;

/// Position, waypoint, connections, utility.
const STATE: usize = 2 + 2 + STATIONS + 1;

/// What differs between the variants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Radio {
    /// The environment's id.
    pub id: &'static str,
    /// Carrier frequency in MHz.
    pub frequency: f64,
    /// Bandwidth in Hz.
    pub bandwidth: f64,
    /// How far the device moves in one step, in metres.
    pub speed: f64,
}

/// LTE band 33, at the speed of mobile-env.
pub const LTE: Radio = Radio { id: "MobileCell-LTE-v0", frequency: 2100.0, bandwidth: 20e6, speed: 1.5 };
/// 5G band n77, six times as fast.
pub const NR: Radio = Radio { id: "MobileCell-5G-v0", frequency: 3300.0, bandwidth: 100e6, speed: 9.0 };

impl Radio {
    /// The variant of this environment id.
    ///
    /// # Errors
    /// [`EnvError::UnknownId`] for any other environment.
    pub fn of(id: &str) -> Result<Self, EnvError> {
        let variants = [LTE, NR];
        variants.into_iter().find(|radio| radio.id == id).ok_or_else(|| EnvError::UnknownId {
            id: id.chars().take(64).collect(),
            known: variants.map(|radio| radio.id).join(", "),
        })
    }

    /// The signal-to-noise ratio of every station at a position, as a plain ratio (not in dB).
    ///
    /// Path loss after Okumura and Hata for a city of small or medium size. Distances are between positions cut to whole
    /// numbers and are put in as metres, where the model has kilometres: both as in mobile-env.
    pub fn snr(&self, [x, y]: [f64; 2]) -> [f64; STATIONS] {
        let (at_one, per_decade) = self.path_loss();
        STATION_POSITIONS.map(|[station_x, station_y]| {
            let (dx, dy) = (x.trunc() - station_x, y.trunc() - station_y);
            let loss = at_one + per_decade * ((dx * dx + dy * dy).sqrt() + 1e-16).log10();
            10f64.powf((TRANSMIT_POWER_DBM - loss) / 10.0) / NOISE
        })
    }

    /// The distance in metres at which a station's signal-to-noise ratio is `snr`.
    pub fn distance(&self, snr: f64) -> f64 {
        let (at_one, per_decade) = self.path_loss();
        10f64.powf((TRANSMIT_POWER_DBM - 10.0 * (snr * NOISE).log10() - at_one) / per_decade)
    }

    /// The path loss in dB at a distance of one, and what is added for ten times the distance.
    fn path_loss(&self) -> (f64, f64) {
        let log_frequency = self.frequency.log10();
        let correction = 0.8 + (1.1 * log_frequency - 0.7) * DEVICE_HEIGHT - 1.56 * log_frequency;
        let at_one = 69.55 - correction + 26.16 * log_frequency - 13.82 * STATION_HEIGHT.log10();
        (at_one, 44.9 - 6.55 * STATION_HEIGHT.log10())
    }

    /// The data rate of one connection in bit/s, after Shannon; 0 below the threshold.
    pub fn rate(&self, snr: f64) -> f64 {
        // Not `ln_1p`, though the ratio is small: mobile-env rounds the sum, and so does this.
        if snr > SNR_THRESHOLD { self.bandwidth * (1.0 + snr).log2() } else { 0.0 }
    }
}

/// The utility of a data rate (bit/s), logarithmic and scaled to [-1, 1].
pub fn utility(rate: f64) -> f64 {
    let utility = if rate > 0.0 { 10.0 * rate.ln() / 10f64.ln() } else { -LARGEST_UTILITY };
    let utility = within(utility, -LARGEST_UTILITY, LARGEST_UTILITY);
    2.0 * (utility + LARGEST_UTILITY) / (2.0 * LARGEST_UTILITY) - 1.0
}

/// What the device measures where it is now. Observations have the ratios of signals only, a device knows more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reception {
    /// The signal-to-noise ratio of each station.
    pub snr: [f64; STATIONS],
    /// The connections that the next step begins with: those of the state, less the stations now out of range.
    pub connected: [bool; STATIONS],
}

impl Reception {
    /// The reception in a cell selection environment, whose episode may stand anywhere.
    ///
    /// # Errors
    /// [`EnvError::UnknownId`] for another environment.
    pub fn of(environment: &dyn ClassicEnvironment) -> Result<Self, EnvError> {
        let radio = Radio::of(environment.id())?;
        let wrong = |_| EnvError::State {
            id: radio.id.into(),
            expected: STATE,
            got: format!("{} numbers", environment.state().len()),
        };
        Ok(Self::at(&radio, environment.state().try_into().map_err(wrong)?))
    }

    fn at(radio: &Radio, state: &[f64; STATE]) -> Self {
        let Device { position, connected, .. } = Device::from(state);
        let snr = radio.snr(position);
        Self { snr, connected: std::array::from_fn(|k| connected[k] && snr[k] > SNR_THRESHOLD) }
    }

    /// Whether a station can be connected to.
    pub fn in_range(&self, station: usize) -> bool {
        self.snr[station] > SNR_THRESHOLD
    }
}

/// The state with names.
struct Device {
    position: [f64; 2],
    waypoint: [f64; 2],
    connected: [bool; STATIONS],
    utility: f64,
}

impl From<&[f64; STATE]> for Device {
    fn from(state: &[f64; STATE]) -> Self {
        Self {
            position: [state[0], state[1]],
            waypoint: [state[2], state[3]],
            connected: std::array::from_fn(|k| state[4 + k] != 0.0),
            utility: state[STATE - 1],
        }
    }
}

impl From<Device> for [f64; STATE] {
    fn from(Device { position, waypoint, connected, utility }: Device) -> Self {
        let mut state = [0.0; STATE];
        state[..2].copy_from_slice(&position);
        state[2..4].copy_from_slice(&waypoint);
        state[4..4 + STATIONS].copy_from_slice(&connected.map(|connected| f64::from(u8::from(connected))));
        state[STATE - 1] = utility;
        state
    }
}

/// A variant as a type, because rules are functions without a self.
pub(crate) trait Variant: Send {
    const RADIO: Radio;
}

pub(crate) struct Lte;

impl Variant for Lte {
    const RADIO: Radio = LTE;
}

pub(crate) struct FifthGeneration;

impl Variant for FifthGeneration {
    const RADIO: Radio = NR;
}

/// The environment's rules.
pub(crate) struct MobileCell<V>(PhantomData<V>);

/// A variant, not yet reset.
pub(crate) fn make<V: Variant + 'static>() -> Box<dyn ClassicEnvironment> {
    Box::new(crate::classic::Classic::<MobileCell<V>, STATE>::new(V::RADIO.id, STEPS))
}

impl<V: Variant> Dynamics<STATE> for MobileCell<V> {
    fn observation_space() -> Space {
        Space::uniform(2 * STATIONS + 1, -1.0, 1.0)
    }

    fn action_space() -> Space {
        Space::Discrete { n: STATIONS as u32 + 1 }
    }

    fn generator(seed: u64) -> Rng {
        Rng::new(seed.wrapping_add(MOVEMENT_SEED))
    }

    fn initial_state(rng: &mut Rng) -> [f64; STATE] {
        let position = anywhere(rng);
        Device { position, waypoint: position, connected: [false; STATIONS], utility: -1.0 }.into()
    }

    /// Draws a waypoint where there is none.
    fn draw(state: &mut [f64; STATE], rng: &mut Rng) {
        let mut device = Device::from(&*state);
        if device.waypoint == device.position {
            device.waypoint = anywhere(rng);
            *state = device.into();
        }
    }

    fn step(state: &[f64; STATE], action: f64, _first: bool) -> Transition<STATE> {
        let radio = &V::RADIO;
        let reception = Reception::at(radio, state);
        let mut device = Device::from(state);
        device.connected = reception.connected;
        // 0 is no station's number.
        if let Some(station) = (0..STATIONS).find(|&k| action == (k + 1) as f64) {
            device.connected[station] = !device.connected[station] && reception.in_range(station);
        }
        let connected = (0..STATIONS).filter(|&k| device.connected[k]);
        device.utility = utility(connected.map(|k| radio.rate(reception.snr[k])).sum());
        let reward = device.utility;
        device.position = moved(device.position, device.waypoint, radio.speed);
        Transition { state: device.into(), reward, terminated: false }
    }

    /// A station that the step's movement took out of range still shows as connected; the next step releases it.
    fn observe(state: &[f64; STATE], observation: &mut [f32]) {
        let Device { position, connected, utility, .. } = Device::from(state);
        let snr = V::RADIO.snr(position);
        let largest = snr.into_iter().fold(0.0, f64::max);
        for k in 0..STATIONS {
            observation[k] = f32::from(u8::from(connected[k]));
            observation[STATIONS + k] = (snr[k] / largest) as f32;
        }
        observation[2 * STATIONS] = utility as f32;
    }
}

/// A point of the square in which the device moves.
fn anywhere(rng: &mut Rng) -> [f64; 2] {
    [rng.uniform(0.0, MOVEMENT_SIDE), rng.uniform(0.0, MOVEMENT_SIDE)]
}

/// One step towards the waypoint, at most onto it.
fn moved(position: [f64; 2], waypoint: [f64; 2], speed: f64) -> [f64; 2] {
    let [dx, dy] = [waypoint[0] - position[0], waypoint[1] - position[1]];
    let distance = (dx * dx + dy * dy).sqrt();
    if distance <= speed {
        return waypoint;
    }
    [position[0] + speed * dx / distance, position[1] + speed * dy / distance]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stations_reach_as_far_as_the_model_says() {
        for (radio, inside, outside) in [(LTE, 78.0, 79.0), (NR, 55.0, 56.0)] {
            let [x, y] = STATION_POSITIONS[1];
            assert!(radio.snr([x, y - inside])[1] > SNR_THRESHOLD);
            assert!(radio.snr([x, y - outside])[1] <= SNR_THRESHOLD);
            assert!((inside..outside).contains(&radio.distance(SNR_THRESHOLD)));
        }
    }

    #[test]
    fn utility_grows_with_the_rate_between_its_bounds() {
        assert_eq!([0.0, 1e-9, 1.0, 100.0, f64::INFINITY].map(utility), [-1.0, -1.0, 0.0, 1.0, 1.0]);
        assert!(utility(2.0) > utility(1.0));
    }

    #[test]
    fn a_device_lands_on_its_waypoint_and_not_beyond() {
        assert_eq!(moved([0.0, 0.0], [3.0, 4.0], 5.0), [3.0, 4.0]);
        assert_eq!(moved([0.0, 0.0], [6.0, 8.0], 5.0), [3.0, 4.0]);
    }

    #[test]
    fn only_cell_selection_has_a_reception() {
        let cartpole = crate::make_classic("CartPole-v1").unwrap();
        assert!(matches!(Reception::of(&*cartpole), Err(EnvError::UnknownId { .. })));
    }
}
