//! What an operator watches: counted while the server works, written as Prometheus reads it (OpenMetrics).

use oto_agent::learner::Counts;
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use tokio::time::Instant;

/// Why something was not done, or who was shown out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    reason: &'static str,
}

/// A policy's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    policy: String,
}

/// What is counted of learners, by their names.
#[derive(Clone)]
struct LearnerFamilies {
    edges: Family<Named, Gauge>,
    rows: Family<Named, Gauge>,
    steps: Family<Named, Gauge>,
    left_out: Family<Left, Gauge>,
    lost: Family<Named, Gauge>,
    updates: Family<Named, Gauge>,
    backlog: Family<Named, Gauge>,
    transitions: Family<Named, Gauge>,
    log: Family<Named, Gauge>,
    pushes: Family<Named, Counter>,
    push: Family<Named, Counter>,
    applied: Family<Named, Counter>,
    refused: Family<Named, Counter>,
    staleness: Family<Named, Histogram, fn() -> Histogram>,
    episodes: Family<Named, Gauge>,
    score: Family<Played, Gauge<f64, AtomicU64>>,
}

/// What is counted of shared agents, by their names.
#[derive(Clone, Default)]
struct ShareFamilies {
    workers: Family<Named, Gauge>,
    updates: Family<Named, Gauge>,
    steps: Family<Named, Gauge>,
    gradients: Family<Named, Counter>,
    refused: Family<Left, Counter>,
    stale: Family<Named, Counter>,
    stalest: Family<Named, Gauge>,
    push: Family<Named, Counter>,
    score: Family<Named, Gauge<f64, AtomicU64>>,
}

impl ShareFamilies {
    fn register(&self, r: &mut Registry) {
        r.register("share_workers", "Workers that are connected", self.workers.clone());
        r.register("share_updates", "Updates", self.updates.clone());
        r.register("share_steps", "Environment steps of all workers", self.steps.clone());
        r.register("share_gradients", "Gradients that made an update", self.gradients.clone());
        r.register("share_refused", "Gradients that were refused, by reason", self.refused.clone());
        let help = "Updates between the parameters of a gradient and those that it was applied to, added up";
        r.register("share_staleness", help, self.stale.clone());
        r.register("share_max_staleness", "The most of them of one gradient", self.stalest.clone());
        r.register_with_unit("share_push", "Parameters that were sent", Unit::Bytes, self.push.clone());
        r.register("share_return", "Mean return of the last evaluation", self.score.clone());
    }
}

/// What is counted of one shared agent.
#[derive(Clone)]
pub(crate) struct ShareMetrics {
    families: ShareFamilies,
    policy: String,
}

impl ShareMetrics {
    fn named(&self) -> Named {
        Named { policy: self.policy.clone() }
    }

    /// A worker connected.
    pub fn worker(&self) -> Present {
        Present::new(&self.families.workers.get_or_create(&self.named()))
    }

    /// A gradient made an update; its staleness, and all updates and steps.
    pub fn applied(&self, staleness: u64, updates: u64, steps: u64) {
        let (families, named) = (&self.families, self.named());
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        families.gradients.get_or_create(&named).inc();
        families.stale.get_or_create(&named).inc_by(staleness);
        families.updates.get_or_create(&named).set(whole(updates));
        families.steps.get_or_create(&named).set(whole(steps));
        let stalest = families.stalest.get_or_create(&named);
        stalest.set(stalest.get().max(whole(staleness)));
    }

    /// A gradient was refused.
    pub fn refused(&self, reason: &'static str) {
        self.families.refused.get_or_create(&Left { policy: self.policy.clone(), reason }).inc();
    }

    /// Parameters were sent.
    pub fn pushed(&self, bytes: usize) {
        self.families.push.get_or_create(&self.named()).inc_by(bytes as u64);
    }

    /// The agent was evaluated.
    pub fn evaluated(&self, mean: f64) {
        self.families.score.get_or_create(&self.named()).set(mean);
    }
}

/// What is counted of groups, by their names.
#[derive(Clone, Default)]
struct GroupFamilies {
    members: Family<Named, Gauge>,
    states: Family<Named, Counter>,
    logits: Family<Named, Counter>,
    refused: Family<Left, Counter>,
}

impl GroupFamilies {
    fn register(&self, r: &mut Registry) {
        r.register("group_members", "Members that are connected", self.members.clone());
        r.register("group_states", "States that were passed on to other members", self.states.clone());
        r.register("group_logits", "States whose logits came back", self.logits.clone());
        r.register("group_refused", "Frames and members that were refused, by reason", self.refused.clone());
    }
}

/// What is counted of one group.
#[derive(Clone)]
pub(crate) struct GroupMetrics {
    families: GroupFamilies,
    policy: String,
}

impl GroupMetrics {
    fn named(&self) -> Named {
        Named { policy: self.policy.clone() }
    }

    /// A member connected.
    pub fn member(&self) -> Present {
        Present::new(&self.families.members.get_or_create(&self.named()))
    }

    /// States were passed on.
    pub fn asked(&self, states: usize) {
        self.families.states.get_or_create(&self.named()).inc_by(states as u64);
    }

    /// Counts states whose logits were passed on.
    pub fn answered(&self, states: usize) {
        self.families.logits.get_or_create(&self.named()).inc_by(states as u64);
    }

    /// A frame or a member was refused.
    pub fn refused(&self, reason: &'static str) {
        self.families.refused.get_or_create(&Left { policy: self.policy.clone(), reason }).inc();
    }
}

/// A learner's transitions that it does not learn from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Left {
    policy: String,
    reason: &'static str,
}

/// A learner's episodes of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Played {
    policy: String,
    kind: &'static str,
}

/// Steps from a row that weights were made of to a row that they decided: from 1 to 500,000.
fn staleness() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 20))
}

impl LearnerFamilies {
    fn new() -> Self {
        LearnerFamilies {
            edges: Family::default(),
            rows: Family::default(),
            steps: Family::default(),
            left_out: Family::default(),
            lost: Family::default(),
            updates: Family::default(),
            backlog: Family::default(),
            transitions: Family::default(),
            log: Family::default(),
            pushes: Family::default(),
            push: Family::default(),
            applied: Family::default(),
            refused: Family::default(),
            staleness: Family::new_with_constructor(staleness),
            episodes: Family::default(),
            score: Family::default(),
        }
    }

    fn register(&self, r: &mut Registry) {
        r.register("learner_edges", "Edges that are connected", self.edges.clone());
        r.register("learner_rows", "Rows that were taken", self.rows.clone());
        r.register("learner_steps", "Transitions that are learned from", self.steps.clone());
        r.register("learner_left_out", "Transitions that are not, by reason", self.left_out.clone());
        r.register(
            "learner_lost_rows",
            "Rows that were lost at an edge, whose ring was full",
            self.lost.clone(),
        );
        r.register("learner_updates", "Updates", self.updates.clone());
        r.register("learner_backlog", "Updates that are owed", self.backlog.clone());
        r.register("learner_transitions", "Transitions in the replay", self.transitions.clone());
        r.register_with_unit("learner_log", "Rows since the checkpoint", Unit::Bytes, self.log.clone());
        r.register("learner_pushes", "Pushes of weights", self.pushes.clone());
        r.register_with_unit("learner_push", "Pushes of weights", Unit::Bytes, self.push.clone());
        r.register("learner_applied", "Pushes that edges act with", self.applied.clone());
        r.register("learner_refused", "Pushes that edges refused", self.refused.clone());
        let help = "Steps from the newest row behind the weights to the newest row that they decided";
        r.register("learner_staleness", help, self.staleness.clone());
        r.register("learner_episodes", "Episodes that ended", self.episodes.clone());
        r.register("learner_return", "The return of the episode that ended last", self.score.clone());
    }
}

/// What is counted of one learner.
#[derive(Clone)]
pub(crate) struct LearnerMetrics {
    families: LearnerFamilies,
    policy: String,
}

impl LearnerMetrics {
    fn named(&self) -> Named {
        Named { policy: self.policy.clone() }
    }

    /// An edge connected.
    pub fn edge(&self) -> Present {
        Present::new(&self.families.edges.get_or_create(&self.named()))
    }

    /// Weights were sent.
    pub fn pushed(&self, bytes: usize) {
        self.families.pushes.get_or_create(&self.named()).inc();
        self.families.push.get_or_create(&self.named()).inc_by(bytes as u64);
    }

    /// An edge acts with the weights that were sent.
    pub fn applied(&self) {
        self.families.applied.get_or_create(&self.named()).inc();
    }

    /// An edge refused them.
    pub fn refused(&self) {
        self.families.refused.get_or_create(&self.named()).inc();
    }

    /// A row was decided by weights of this age.
    pub fn stale(&self, steps: u64) {
        self.families.staleness.get_or_create(&self.named()).observe(steps as f64);
    }

    /// An episode ended.
    pub fn episode(&self, score: f64, evaluation: bool) {
        let kind = if evaluation { "evaluation" } else { "training" };
        let played = Played { policy: self.policy.clone(), kind };
        self.families.score.get_or_create(&played).set(score);
    }

    /// How the learner stands: what it counted, its updates, backlog and transitions, and the bytes of its log.
    pub fn stands(&self, counts: Counts, updates: u64, backlog: u64, transitions: usize, log: u64) {
        let (families, named) = (&self.families, self.named());
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        for (family, number) in [
            (&families.rows, counts.rows),
            (&families.steps, counts.steps),
            (&families.lost, counts.lost),
            (&families.episodes, counts.episodes),
            (&families.updates, updates),
            (&families.backlog, backlog),
            (&families.transitions, transitions as u64),
            (&families.log, log),
        ] {
            family.get_or_create(&named).set(whole(number));
        }
        let left =
            [("evaluation", counts.evaluation), ("faulty", counts.faulty), ("not_finite", counts.not_finite)];
        for (reason, number) in left {
            let left = Left { policy: self.policy.clone(), reason };
            families.left_out.get_or_create(&left).set(whole(number));
        }
    }
}

/// A policy, as it stands when somebody looks.
pub(crate) struct Standing {
    /// Its name.
    pub policy: String,
    /// The version that answers.
    pub version: u32,
    /// Requests that wait.
    pub requests: usize,
    /// States that wait.
    pub states: usize,
}

/// All that is counted.
pub(crate) struct Metrics {
    registry: Registry,
    connections: Gauge,
    students: Gauge,
    requests: Counter,
    states: Counter,
    logits: Counter,
    received: Counter,
    sent: Counter,
    dropped: Family<Dropped, Counter>,
    wait: Histogram,
    compute: Histogram,
    answer: Histogram,
    batch: Histogram,
    resets: Family<Dropped, Counter>,
    version: Family<Named, Gauge>,
    waiting_requests: Family<Named, Gauge>,
    waiting_states: Family<Named, Gauge>,
    learners: LearnerFamilies,
    shares: ShareFamilies,
    groups: GroupFamilies,
}

impl Default for Metrics {
    fn default() -> Self {
        // From 20 microseconds to 10 seconds; from one state to a full batch.
        let time = || Histogram::new(exponential_buckets(20e-6, 2.0, 20));
        let mut metrics = Metrics {
            registry: Registry::with_prefix("oto"),
            connections: Gauge::default(),
            students: Gauge::default(),
            requests: Counter::default(),
            states: Counter::default(),
            logits: Counter::default(),
            received: Counter::default(),
            sent: Counter::default(),
            dropped: Family::default(),
            wait: time(),
            compute: time(),
            answer: time(),
            batch: Histogram::new(exponential_buckets(1.0, 2.0, 14)),
            resets: Family::default(),
            version: Family::default(),
            waiting_requests: Family::default(),
            waiting_states: Family::default(),
            learners: LearnerFamilies::new(),
            shares: ShareFamilies::default(),
            groups: GroupFamilies::default(),
        };
        metrics.register();
        metrics
    }
}

/// Counted in a gauge for as long as it is kept.
pub(crate) struct Present(Gauge);

impl Present {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Present(gauge.clone())
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("connections", "Connections, students' or not", self.connections.clone());
        r.register("students", "Students that were greeted and have not left", self.students.clone());
        r.register("requests", "Requests for actions or logits that were taken", self.requests.clone());
        r.register("states", "States in these requests", self.states.clone());
        r.register("logit_states", "Those of them that were asked for logits", self.logits.clone());
        r.register_with_unit("received", "Messages of students", Unit::Bytes, self.received.clone());
        r.register_with_unit("sent", "Messages to students", Unit::Bytes, self.sent.clone());
        r.register(
            "dropped",
            "Requests and connections that were refused or ended, by reason",
            self.dropped.clone(),
        );
        r.register(
            "state_resets",
            "States of recurrent policies that were reset within an episode, by reason",
            self.resets.clone(),
        );
        r.register_with_unit(
            "wait",
            "From a request's coming to its batch",
            Unit::Seconds,
            self.wait.clone(),
        );
        r.register_with_unit("compute", "A policy's work on a batch", Unit::Seconds, self.compute.clone());
        r.register_with_unit(
            "answer",
            "From a request's coming to its answer on the socket",
            Unit::Seconds,
            self.answer.clone(),
        );
        r.register("batch", "States in a batch", self.batch.clone());
        r.register("policy_version", "The version that answers", self.version.clone());
        r.register("waiting_requests", "Requests that wait", self.waiting_requests.clone());
        r.register("waiting_states", "States that wait", self.waiting_states.clone());
        self.learners.register(r);
        self.shares.register(r);
        self.groups.register(r);
    }

    /// What is counted of a learner.
    pub fn learner(&self, name: &str) -> LearnerMetrics {
        LearnerMetrics { families: self.learners.clone(), policy: escaped(name) }
    }

    /// What is counted of a shared agent.
    pub fn share(&self, name: &str) -> ShareMetrics {
        ShareMetrics { families: self.shares.clone(), policy: escaped(name) }
    }

    /// What is counted of a group.
    pub fn group(&self, name: &str) -> GroupMetrics {
        GroupMetrics { families: self.groups.clone(), policy: escaped(name) }
    }

    /// Somebody connected.
    pub fn connection(&self) -> Present {
        Present::new(&self.connections)
    }

    /// A student was greeted.
    pub fn student(&self) -> Present {
        Present::new(&self.students)
    }

    /// A request was taken.
    pub fn taken(&self, states: usize) {
        self.requests.inc();
        self.states.inc_by(states as u64);
    }

    /// A request for logits was taken.
    pub fn logits(&self, states: usize) {
        self.logits.inc_by(states as u64);
    }

    /// A message came.
    pub fn received(&self, bytes: usize) {
        self.received.inc_by(bytes as u64);
    }

    /// A message was sent.
    pub fn sent(&self, bytes: usize) {
        self.sent.inc_by(bytes as u64);
    }

    /// A request that came then is answered now.
    pub fn answered(&self, came: Instant) {
        self.answer.observe(came.elapsed().as_secs_f64());
    }

    /// Something was refused, or someone was shown out.
    pub fn dropped(&self, reason: &'static str) {
        self.dropped.get_or_create(&Dropped { reason }).inc();
    }

    /// The state of a recurrent policy was reset for a student, though no episode began.
    pub fn reset_state(&self, reason: &'static str) {
        self.resets.get_or_create(&Dropped { reason }).inc();
    }

    /// A batch of requests that came at these times was worked on from `start` until now.
    pub fn batch(&self, came: impl Iterator<Item = Instant>, states: usize, start: Instant) {
        came.for_each(|came| self.wait.observe(start.saturating_duration_since(came).as_secs_f64()));
        self.compute.observe(start.elapsed().as_secs_f64());
        self.batch.observe(states as f64);
    }

    /// Everything as text, with how the policies stand.
    pub fn text(&self, standing: Vec<Standing>) -> String {
        for Standing { policy, version, requests, states } in standing {
            let named = Named { policy: escaped(&policy) };
            self.version.get_or_create(&named).set(version.into());
            self.waiting_requests.get_or_create(&named).set(requests as i64);
            self.waiting_states.get_or_create(&named).set(states as i64);
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// The content type and the text for a reader, by its header `Accept`: OpenMetrics where it names that, else the format of Prometheus,
/// which everyone reads.
pub(crate) fn negotiated(accept: &str, text: String) -> (&'static str, String) {
    let refused = |parameters: &str| {
        let weight = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("q="));
        weight.and_then(|weight| weight.parse::<f32>().ok()).is_some_and(|weight| weight <= 0.0)
    };
    let wants = accept.split(',').any(|range| {
        let (name, parameters) = range.trim().split_once(';').unwrap_or((range.trim(), ""));
        name.trim().eq_ignore_ascii_case("application/openmetrics-text") && !refused(parameters)
    });
    match wants {
        true => ("application/openmetrics-text; version=1.0.0; charset=utf-8", text),
        false => ("text/plain; version=0.0.4; charset=utf-8", plain(&text)),
    }
}

/// OpenMetrics as Prometheus' older format, version 0.0.4: a counter is called as its samples are, and nothing stands at the end.
fn plain(text: &str) -> String {
    let is_counter = |name: &str| text.contains(&format!("# TYPE {name} counter\n"));
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "EOF"] | ["#", "UNIT", ..] => continue,
            ["#", kind @ ("TYPE" | "HELP"), name, rest] if is_counter(name) => {
                out.push_str(&format!("# {kind} {name}_total {rest}\n"));
            }
            _ => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    out
}

/// A label's value as the format wants it: any name may be a policy's.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_told() {
        let metrics = Metrics::default();
        let (one, _two) = (metrics.student(), metrics.student());
        drop(one);
        metrics.taken(64);
        metrics.dropped("full");
        metrics.batch([Instant::now()].into_iter(), 64, Instant::now());
        let standing = Standing { policy: "pole \"1\"".into(), version: 3, requests: 2, states: 9 };
        let text = metrics.text(vec![standing]);
        for line in [
            "oto_students 1",
            "oto_states_total 64",
            "oto_dropped_total{reason=\"full\"} 1",
            "oto_batch_bucket{le=\"64.0\"} 1",
            "oto_wait_seconds_count 1",
            "oto_policy_version{policy=\"pole \\\"1\\\"\"} 3",
            "oto_waiting_states{policy=\"pole \\\"1\\\"\"} 9",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_scraper_gets_the_format_that_it_asks_for() {
        let metrics = Metrics::default();
        metrics.taken(64);
        metrics.dropped("full");
        let text = metrics.text(Vec::new());
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accept in [
            prometheus,
            "application/openmetrics-text",
            "text/plain, Application/OpenMetrics-Text; version=1.0.0",
        ] {
            let (mime, found) = negotiated(accept, text.clone());
            assert!(mime.starts_with("application/openmetrics-text") && found == text, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "text/plain;version=0.0.4",
            "application/openmetrics-text;q=0",
            "text/html",
        ] {
            let (mime, found) = negotiated(accept, text.clone());
            assert!(mime.starts_with("text/plain; version=0.0.4"), "{accept}");
            // Each sample belongs to a type that was named before it, and nothing of the other format is left.
            let mut types = std::collections::HashMap::new();
            for line in found.lines() {
                if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
                {
                    types.insert(name.to_owned(), kind.to_owned());
                    continue;
                }
                assert!(line.starts_with("# HELP ") || !line.starts_with('#'), "{line}");
                let name = line.split(['{', ' ']).next().unwrap();
                let of_histogram = ["_bucket", "_sum", "_count"].iter().any(|end| {
                    name.strip_suffix(end)
                        .is_some_and(|name| types.get(name).is_some_and(|kind| kind == "histogram"))
                });
                assert!(line.starts_with('#') || types.contains_key(name) || of_histogram, "{line}");
            }
            assert_eq!(types["oto_states_total"], "counter");
            assert!(
                found.contains("\noto_states_total 64\n")
                    && found.contains("oto_dropped_total{reason=\"full\"} 1")
            );
        }
    }
}
