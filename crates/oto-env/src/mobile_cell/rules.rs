//! The six rules that OTO's cell selection experiment compares with (section VI-B), one action a step.
//!
//! A rule says which stations it wants; the device then drops a connection it does not want, or else makes the wanted
//! connection with the strongest signal. Dropping comes first, as in LTE's hand-over. The paper names the rules in a
//! sentence each; what it leaves open follows the sources it cites and the code of one of mobile-env's authors' papers
//! (Schneider et al., "DeepCoMP", 2021), from which these baselines are known.

use super::{Reception, STATION_POSITIONS, STATIONS};
use crate::rng::Rng;

/// A rule of cell selection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// One station, whenever it is in range.
    Fixed {
        /// Which, from 0; a station that does not exist is never in range.
        station: usize,
    },
    /// A station in range, drawn uniformly, until it is out of range.
    Random,
    /// All stations in range: the most data that a device can get, up to the time that connecting takes.
    Full,
    /// The station with the strongest signal: cell selection as in LTE (3GPP TR 36.814).
    Lte,
    /// All stations of the strongest one's cluster. Clusters are fixed: from the first station left over, grown by the
    /// one nearest to the cluster's centre (after Marsch and Fettweis, ICC 2011).
    Clustering {
        /// Stations in a cluster; the last one may have fewer. 0 counts as 1.
        size: usize,
    },
    /// All stations with at least this share of the strongest signal (Beylerian and Ohtsuki, 2016): 1 is [`Rule::Lte`], 0
    /// is [`Rule::Full`].
    Dynamic {
        /// The share, from 0 to 1.
        share: f64,
    },
}

impl Rule {
    /// The six rules with their names: the fixed station is the one in the middle, clusters have three stations, half of the
    /// strongest signal is enough.
    pub const ALL: [(&'static str, Self); 6] = [
        ("Fixed", Self::Fixed { station: 1 }),
        ("Random", Self::Random),
        ("Full", Self::Full),
        ("LTE", Self::Lte),
        ("Clustering", Self::Clustering { size: 3 }),
        ("Dynamic", Self::Dynamic { share: 0.5 }),
    ];

    /// The action of this rule: 0 for no change, `k` to toggle station `k - 1`. Only [`Rule::Random`] draws.
    pub fn action(&self, reception: &Reception, rng: &mut Rng) -> u32 {
        let wanted = self.wanted(reception, rng);
        let Reception { snr, connected } = reception;
        let unwanted = (0..STATIONS).find(|&k| connected[k] && !wanted[k]);
        let missing = (0..STATIONS).filter(|&k| wanted[k] && !connected[k] && reception.in_range(k));
        let strongest = missing.max_by(|&a, &b| snr[a].total_cmp(&snr[b]));
        unwanted.or(strongest).map_or(0, |station| station as u32 + 1)
    }

    fn wanted(&self, reception: &Reception, rng: &mut Rng) -> [bool; STATIONS] {
        let snr = &reception.snr;
        let strongest = (0..STATIONS).fold(0, |best, k| if snr[k] > snr[best] { k } else { best });
        match *self {
            Self::Fixed { station } => std::array::from_fn(|k| k == station),
            Self::Random if reception.connected.contains(&true) => reception.connected,
            Self::Random => {
                let in_range = (0..STATIONS).filter(|&k| reception.in_range(k));
                let drawn = in_range.clone().nth(rng.below(in_range.count() as u32) as usize);
                std::array::from_fn(|k| Some(k) == drawn)
            }
            Self::Full => [true; STATIONS],
            Self::Lte => std::array::from_fn(|k| k == strongest),
            Self::Clustering { size } => {
                let clusters = clusters(size);
                clusters.map(|cluster| cluster == clusters[strongest])
            }
            Self::Dynamic { share } => snr.map(|ratio| ratio >= share * snr[strongest]),
        }
    }
}

/// The number of each station's cluster.
fn clusters(size: usize) -> [usize; STATIONS] {
    let mut clusters = [None; STATIONS];
    for number in 0.. {
        let Some(first) = clusters.iter().position(Option::is_none) else { break };
        clusters[first] = Some(number);
        for _ in 1..size {
            let Some(nearest) = nearest_to(number, &clusters) else { break };
            clusters[nearest] = Some(number);
        }
    }
    clusters.map(Option::unwrap_or_default)
}

/// The station of no cluster that is nearest to the centre of this one.
fn nearest_to(number: usize, clusters: &[Option<usize>; STATIONS]) -> Option<usize> {
    let members = || (0..STATIONS).filter(|&k| clusters[k] == Some(number)).map(|k| STATION_POSITIONS[k]);
    let count = members().count() as f64;
    let centre = members().fold([0.0; 2], |[x, y], [dx, dy]| [x + dx / count, y + dy / count]);
    let distance =
        |k: usize| (STATION_POSITIONS[k][0] - centre[0]).hypot(STATION_POSITIONS[k][1] - centre[1]);
    let free = (0..STATIONS).filter(|&k| clusters[k].is_none());
    free.min_by(|&a, &b| distance(a).total_cmp(&distance(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stations 0 to 3 are in range, 3 is the strongest.
    const SNR: [f64; STATIONS] = [3e-8, 6e-8, 4e-8, 9e-8, 1e-9, 1e-9, 1e-9];

    fn action(rule: Rule, connected: &[usize]) -> u32 {
        let connected = std::array::from_fn(|k| connected.contains(&k));
        rule.action(&Reception { snr: SNR, connected }, &mut Rng::new(0))
    }

    #[test]
    fn unwanted_connections_go_first_then_the_strongest_comes() {
        assert_eq!(action(Rule::Lte, &[]), 4);
        assert_eq!(action(Rule::Lte, &[1, 3]), 2);
        assert_eq!(action(Rule::Lte, &[1]), 2);
        assert_eq!(action(Rule::Lte, &[3]), 0);
        assert_eq!(action(Rule::Full, &[3]), 2);
        assert_eq!(action(Rule::Full, &[0, 1, 2, 3]), 0);
        assert_eq!(action(Rule::Fixed { station: 2 }, &[]), 3);
        assert_eq!(action(Rule::Fixed { station: 2 }, &[2]), 0);
        assert_eq!(action(Rule::Fixed { station: 5 }, &[]), 0, "out of range");
        assert_eq!(action(Rule::Fixed { station: 70 }, &[]), 0);
    }

    #[test]
    fn dynamic_lies_between_lte_and_full() {
        let dynamic = |share| Rule::Dynamic { share };
        assert_eq!(action(dynamic(0.5), &[3]), 2);
        assert_eq!(action(dynamic(0.5), &[3, 1]), 0);
        assert_eq!(action(dynamic(0.5), &[3, 1, 2]), 3);
        for connected in [&[][..], &[3], &[1], &[0, 1, 2], &[0, 1, 2, 3]] {
            assert_eq!(action(dynamic(1.0), connected), action(Rule::Lte, connected));
            assert_eq!(action(dynamic(0.0), connected), action(Rule::Full, connected));
        }
    }

    #[test]
    fn random_keeps_what_it_has_and_draws_among_the_stations_in_range() {
        assert_eq!(action(Rule::Random, &[2]), 0);
        let mut rng = Rng::new(1);
        let reception = Reception { snr: SNR, connected: [false; STATIONS] };
        let mut counts = [0; STATIONS + 1];
        for _ in 0..4_000 {
            counts[Rule::Random.action(&reception, &mut rng) as usize] += 1;
        }
        assert!(counts[1..5].iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert_eq!(counts[1..5].iter().sum::<i32>(), 4_000);
        let nowhere = Reception { snr: [0.0; STATIONS], connected: [false; STATIONS] };
        assert_eq!(Rule::Random.action(&nowhere, &mut rng), 0);
    }

    #[test]
    fn clusters_are_of_neighbours() {
        // 3 is 72 m from 0, 1 is nearest to their centre; 4 is 74 m from 2, and then 6; 5 is left.
        assert_eq!(clusters(3), [0, 0, 1, 0, 1, 2, 1]);
        assert_eq!(clusters(0), clusters(1));
        assert_eq!(clusters(1), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(clusters(usize::MAX), [0; STATIONS]);
        let clustering = |connected| action(Rule::Clustering { size: 3 }, connected);
        assert_eq!([clustering(&[3]), clustering(&[3, 1])], [2, 1], "3, 1 and 0 are a cluster");
        assert_eq!([clustering(&[3, 1, 0]), clustering(&[3, 1, 2])], [0, 3], "2 is of another");
    }
}
