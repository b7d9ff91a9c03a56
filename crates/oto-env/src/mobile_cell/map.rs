//! What a map of an episode shows: the device, where it walks to, and how it stands with every station.

use super::{Device, Radio, Reception, SNR_THRESHOLD, STATE, STATION_POSITIONS, STATIONS};
use crate::{ClassicEnvironment, EnvError};

/// How much stronger than needed the signal is within [`MapStation::near`], as a ratio: 10 dB.
const NEAR: f64 = 10.0;

/// An episode as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct CellMap {
    /// Where the device is, x and y in metres.
    pub position: [f64; 2],
    /// Where it walks to; its position while that is not decided.
    pub waypoint: [f64; 2],
    /// The utility of the last step, in [-1, 1].
    pub utility: f64,
    /// The stations, in the order of the actions.
    pub stations: Vec<MapStation>,
}

/// A station, as the device has it now.
#[derive(Clone, Debug, PartialEq)]
pub struct MapStation {
    /// Where it stands, x and y in metres.
    pub position: [f64; 2],
    /// Its signal-to-noise ratio above the smallest that a connection may have, in dB; below 0 it is out of range.
    pub margin: f64,
    /// How far it can be connected to, in metres.
    pub reach: f64,
    /// Up to where its signal is 10 dB stronger than that, in metres.
    pub near: f64,
    /// Whether the device is connected to it.
    pub connected: bool,
}

oto_json::json_object! { CellMap: written { position, waypoint, utility, stations } }
oto_json::json_object! { MapStation: written { position, margin, reach, near, connected } }

impl CellMap {
    /// The map of a cell selection environment, whose episode may stand anywhere.
    ///
    /// # Errors
    /// [`EnvError::UnknownId`] for another environment.
    pub fn of(environment: &dyn ClassicEnvironment) -> Result<Self, EnvError> {
        let radio = Radio::of(environment.id())?;
        let Reception { snr, connected } = Reception::of(environment)?;
        let mut state = [0.0; STATE];
        // A reception has been read from a state of this length.
        state.copy_from_slice(environment.state());
        let Device { position, waypoint, utility, .. } = Device::from(&state);
        let (reach, near) = (radio.distance(SNR_THRESHOLD), radio.distance(NEAR * SNR_THRESHOLD));
        let station = |k: usize| {
            let margin = 10.0 * (snr[k] / SNR_THRESHOLD).log10();
            MapStation { position: STATION_POSITIONS[k], margin, reach, near, connected: connected[k] }
        };
        Ok(Self { position, waypoint, utility, stations: (0..STATIONS).map(station).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mobile_cell::NR;
    use crate::{Action, make_classic};

    #[test]
    fn a_map_shows_what_the_state_says() {
        let mut environment = make_classic(NR.id).unwrap();
        let mut state = [0.0; STATE];
        // 30 m from station 1, out of reach of station 0, and connected to both.
        state[..4].copy_from_slice(&[100.0, 110.0, 100.0, 90.0]);
        (state[4], state[5], state[STATE - 1]) = (1.0, 1.0, 0.25);
        environment.set_state(&state, 3).unwrap();
        let map = CellMap::of(&*environment).unwrap();
        assert_eq!((map.position, map.waypoint, map.utility), ([100.0, 110.0], [100.0, 90.0], 0.25));
        let in_range: Vec<_> = (0..STATIONS).filter(|&k| map.stations[k].margin > 0.0).collect();
        for station in &map.stations {
            let [x, y] = station.position;
            let distance = (x - 100.0).hypot(y - 110.0);
            assert_eq!(station.margin > 0.0, distance < station.reach);
            assert_eq!(station.margin > 10.0, distance < station.near);
        }
        assert!(in_range.contains(&1) && !in_range.contains(&0));
        let connected: Vec<_> = map.stations.iter().map(|station| station.connected).collect();
        assert_eq!(connected, [false, true, false, false, false, false, false], "0 is out of range");

        environment.step(Action::Discrete(0), &mut [0.0; 15]).unwrap();
        assert_eq!(CellMap::of(&*environment).unwrap().position, [100.0, 101.0]);
    }

    #[test]
    fn other_environments_have_no_map() {
        let cartpole = make_classic("CartPole-v1").unwrap();
        assert!(matches!(CellMap::of(&*cartpole), Err(EnvError::UnknownId { .. })));
    }
}
