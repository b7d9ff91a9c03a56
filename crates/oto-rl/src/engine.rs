//! What every learner shares: a program's state on a backend, updates that may run beside this thread, and what goes on when
//! a device is lost. An algorithm brings the program, and takes the weights it acts with.

use crate::losses::{self, Aikd, AikdWeights};
use crate::mlp::Mlp;
use crate::optimiser::due_period;
use crate::shared::GRADIENT;
use oto_env::rng::Rng;
use oto_graph::{Backend, BackendError, Executable, Input, InputId, NodeId, Program, Role, Tensor, Trace};

/// The numbers that schedules set anew for every update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule<'a> {
    /// Learning rate.
    pub lr: f32,
    /// Share of the parameters that the target network takes over: 1 replaces it, 0 leaves it.
    pub target_mix: f32,
    /// OTO eq. 13.
    pub alpha_aikd: f32,
    /// OTO eq. 13.
    pub delta: f32,
    /// OTO eq. 13.
    pub eta: f32,
    /// OTO eq. 13.
    pub alpha_task: f32,
    /// Each teacher's part in OTO eq. 14's mean; see [`losses::shares`].
    pub share: &'a [f32],
}

impl Schedule<'_> {
    /// The number that a program calls so.
    pub(crate) fn input(&self, name: &str) -> Option<&[f32]> {
        let number = match name {
            "lr" => &self.lr,
            "target_mix" => &self.target_mix,
            "alpha_aikd" => &self.alpha_aikd,
            "delta" => &self.delta,
            "eta" => &self.eta,
            "alpha_task" => &self.alpha_task,
            "share" => return Some(self.share),
            _ => return None,
        };
        Some(std::slice::from_ref(number))
    }
}

/// Records the numbers of a [`Schedule`] that weigh the losses of a student with so many teachers.
pub(crate) fn aikd_weights<'t>(t: &'t Trace, teachers: usize) -> AikdWeights<'t> {
    let scalar = |name: &str| t.data(name, &[]);
    AikdWeights {
        alpha_aikd: scalar("alpha_aikd"),
        delta: scalar("delta"),
        eta: scalar("eta"),
        alpha_task: scalar("alpha_task"),
        share: if teachers == 0 { t.constant(0.0, &[1]) } else { t.data("share", &[teachers]) },
    }
}

/// An update's report: the program's outputs by name, in its order.
///
/// Every program reports `loss`; students report `task`, `base`, `rkd_d`, `rkd_a` and `q` ([`LossParts::outputs`]); an algorithm adds
/// names of its own, such as `actor_loss`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossParts(Vec<(String, f32)>);

impl LossParts {
    /// The number of this name.
    pub fn get(&self, name: &str) -> Option<f32> {
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// The same with one number more.
    pub fn with(mut self, name: &str, value: f32) -> Self {
        self.0.push((name.into(), value));
        self
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f32)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

impl oto_json::Object for LossParts {
    fn write_fields(&self, out: &mut oto_json::Writer) {
        self.iter().for_each(|(name, value)| out.field(name, &value));
    }
}

impl oto_json::ToJson for LossParts {
    fn write(&self, out: &mut oto_json::Writer) {
        out.open('{');
        oto_json::Object::write_fields(self, out);
        out.close('}');
    }
}

oto_json::json_serde! { @written LossParts }

/// The output of a program whose batches have importance weights: each row's absolute TD error, `[B]`. It is no part of
/// [`LossParts`].
pub const TD_ERROR: &str = "td_error";

/// Why an update failed.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// The backend's failure.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A loss is no number any more.
    #[error(
        "update {update}: the {} is {}, not a finite number; lower the learning rate or check the rewards",
        .name.replace('_', " "), oto_json::shown(.loss)
    )]
    Diverged {
        /// Which update.
        update: u64,
        /// Which of the program's losses.
        name: String,
        /// What the loss became.
        loss: f32,
    },
    /// Parameters that do not fit this network.
    #[error("parameter {name}: {expected} numbers needed, {}", match got { Some(n) => format!("{n} came"), None => "none came".into() })]
    Parameter {
        /// Its name.
        name: String,
        /// How many numbers it has.
        expected: usize,
        /// How many came.
        got: Option<usize>,
    },
    /// A data input of the program that is neither in the batch nor among the schedule's or the algorithm's numbers.
    #[error("the program reads \"{0}\", which neither the batch, nor the schedule, nor the algorithm gives")]
    Input(String),
    /// A parameter that is not a finite number.
    #[error("parameter {0} holds a value that is not a finite number")]
    NotFinite(String),
    /// An optimiser's number that no optimiser can have.
    #[error("{name} holds {}, expected {expected}", oto_json::shown(.value))]
    Optimiser {
        /// The state's name.
        name: String,
        /// The number.
        value: f32,
        /// The allowed values.
        expected: &'static str,
    },
    /// A run that an algorithm does not continue.
    #[error("{algorithm} continues a run of {of}: {missing} is missing there, or has another shape")]
    Continues {
        /// The algorithm.
        algorithm: &'static str,
        /// The algorithm whose runs it continues.
        of: &'static str,
        /// The tensor that the run lacks.
        missing: &'static str,
    },
    /// Workers of an asynchronous algorithm wait for their gradients: a device beside the thread has them later.
    #[error("asynchronous workers compute on the CPU, got the backend {0:?}")]
    Device(String),
    /// The network that acts answered with what is no action.
    #[error(
        "the network answers this observation with numbers that are not finite: training has diverged, or the observation is too large"
    )]
    NoAction,
}

/// A piece of a learner's state, as checkpoints hold it.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// PyTorch-like name.
    pub name: String,
    /// Shape; empty for one number.
    pub shape: Vec<usize>,
    /// Row-major elements.
    pub values: Vec<f32>,
}

/// The state that a learner took over from another run, by its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Tensors with the name and the shape of a tensor in the run.
    pub taken: Vec<String>,
    /// Target networks and frozen copies that the run lacks: copies of the parameters that were taken.
    pub copied: Vec<String>,
    /// Tensors that the run lacks, or has in another shape: they keep their initial values.
    pub fresh: Vec<String>,
    /// Whether a layer's weights are among the tensors that were taken.
    pub shares_network: bool,
}

/// What every student's program reports.
pub const OUTPUTS: [&str; 6] = ["loss", "task", "base", "rkd_d", "rkd_a", "q"];

impl LossParts {
    /// A student's outputs: the whole loss (OTO eq. 14), the learner's own (its conservative term included), the teachers' BASE, RKD-D
    /// and RKD-A (eq. 10 to 12; means over teachers, each with its `share` `[N]`), and the mean of Q(s, a) over the batch (of V(s)
    /// where there are no Q-values, 0 where there is neither). All are `[]`.
    pub fn outputs<'t>(
        t: &'t Trace,
        loss: Tensor<'t>,
        task: Tensor<'t>,
        teachers: &[Aikd<'t>],
        share: Tensor<'t>,
        q: Tensor<'t>,
    ) -> Vec<(&'static str, Tensor<'t>)> {
        let mean = |part: fn(&Aikd<'_>) -> NodeId| {
            let each = teachers.iter().map(|a| t.at(part(a)));
            losses::over_teachers(each, share).unwrap_or_else(|| t.constant(0.0, &[]))
        };
        let parts = [mean(|a| a.base.id()), mean(|a| a.rkd_d.id()), mean(|a| a.rkd_a.id())];
        OUTPUTS.into_iter().zip([loss, task, parts[0], parts[1], parts[2], q]).collect()
    }
}

/// A compiled program and its state.
///
/// Where the executable runs beside this thread, updates are only started here: their losses and the weights to act with come
/// with [`Self::collect`]. If its device is lost, the fallback goes on from the last snapshot.
pub struct Engine {
    backend: String,
    executable: Box<dyn Executable>,
    fallback: Option<Box<dyn Backend + Send>>,
    outputs: Vec<Vec<f32>>,
    updates: u64,
    /// Updates that this executable was given, and how many of them were there when its state was last put: reports of those
    /// are of another life.
    given: u64,
    put_at: u64,
    /// What is added to the executable's count to get the student's.
    offset: i64,
    /// Which output is [`TD_ERROR`], its newest values, and their update.
    error_output: Option<usize>,
    errors: (u64, Vec<f32>),
    /// The outputs that are numbers of the report.
    parts: Vec<usize>,
    /// The parameters whose gradients leave or enter the program, and the outputs with those that leave; see [`crate::shared`].
    exchanged: Vec<InputId>,
    gradients: Vec<usize>,
    /// The newest numbers of an update, and whether there are any.
    reported: LossParts,
    known: bool,
    /// All state as it was once, in the program's order, and the updates made by then: what a lost device is replaced from.
    kept: (u64, Vec<Vec<f32>>),
    /// All state as it was when it was to be remembered, and whether a device still owes it.
    remembered: Option<Vec<Vec<f32>>>,
    owed: bool,
    lost: Option<String>,
    /// The parameters that act, first layer to last.
    acting: Vec<InputId>,
    /// Their newest values, where the executable runs beside this thread.
    arrived: Vec<Vec<f32>>,
    /// The periods among the program's data inputs, in order, and whether each is due at the update being made.
    periods: Vec<(u64, f32)>,
    /// An update's data, in the program's order; empty in between, only its memory is kept.
    data: Vec<&'static [f32]>,
}

/// A device is asked for all its state every so many updates.
const SNAPSHOT_EVERY: u64 = 200;

impl Engine {
    /// Compiles `program`, whose parameters with names that begin with `acting` act; its state is zeros.
    pub fn new(program: Program, acting: &str, backend: &dyn Backend) -> Result<Self, LearnError> {
        Self::acting_with(program, &[acting], backend)
    }

    /// The same for names that begin with one of several.
    pub fn acting_with(program: Program, acting: &[&str], backend: &dyn Backend) -> Result<Self, LearnError> {
        let mut executable = backend.compile(program)?;
        let one = |name: &str| acting.iter().any(|prefix| name.starts_with(prefix));
        let acts = |(id, input): (InputId, &Input)| one(&input.name).then_some(id);
        let acting = states(executable.program()).filter_map(acts).collect::<Vec<_>>();
        if let Some(device) = executable.device() {
            device.watch(&acting);
        }
        let outputs = executable.program().outputs.iter();
        let error_output = outputs.clone().position(|(name, _)| name == TD_ERROR);
        let count = outputs.len();
        let numbers = outputs.clone().enumerate().filter(|(_, (name, _))| is_number(name));
        let (parts, names) = numbers.map(|(i, (name, _))| (i, (name.clone(), 0.0))).unzip();
        let leaves = |(i, (name, _)): (usize, &(String, NodeId))| name.starts_with(GRADIENT).then_some(i);
        let gradients = outputs.enumerate().filter_map(leaves).collect();
        let exchanged = exchanged(executable.program());
        if !exchanged.is_empty() && executable.device().is_some() {
            return Err(LearnError::Device(backend.name().into()));
        }
        let periods = executable.program().data().filter_map(|(_, input)| due_period(&input.name));
        let periods = periods.map(|period| (period, 0.0)).collect();
        Ok(Self {
            backend: backend.name().to_string(),
            periods,
            data: Vec::new(),
            executable,
            fallback: backend.fallback(),
            outputs: vec![Vec::new(); count],
            error_output,
            errors: (0, Vec::new()),
            parts,
            exchanged,
            gradients,
            reported: LossParts(names),
            known: false,
            updates: 0,
            given: 0,
            put_at: 0,
            offset: 0,
            kept: (0, Vec::new()),
            remembered: None,
            owed: false,
            lost: None,
            acting,
            arrived: Vec::new(),
        })
    }

    /// The program.
    pub fn program(&self) -> &Program {
        self.executable.program()
    }

    /// Replaces all state: a value for each state input.
    pub fn start(&mut self, value: impl FnMut(&Input) -> Vec<f32>) -> Result<(), LearnError> {
        let state = states(self.program()).map(|(_, input)| input).map(value).collect();
        self.put(state)
    }

    /// Replaces all state, given in the program's order.
    fn put(&mut self, state: Vec<Vec<f32>>) -> Result<(), LearnError> {
        match self.write(&state) {
            Err(BackendError::Lost(reason)) => {
                self.leave(reason)?;
                self.write(&state)?;
            }
            other => other?,
        }
        if self.executable.device().is_some() {
            let of_state = states(self.executable.program()).zip(&state);
            let acting = of_state.filter(|((id, _), _)| self.acting.contains(id));
            self.arrived = acting.map(|(_, values)| values.clone()).collect();
        }
        self.kept = (self.updates, state);
        self.errors.1.clear();
        (self.put_at, self.offset) = (self.given, self.updates as i64 - self.given as i64);
        Ok(())
    }

    fn write(&mut self, state: &[Vec<f32>]) -> Result<(), BackendError> {
        let ids = states(self.executable.program()).map(|(id, _)| id).collect::<Vec<_>>();
        ids.iter().zip(state).try_for_each(|(id, values)| self.executable.write(*id, values))
    }

    /// How many updates it has made.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The backend that runs the updates now.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// In a sentence: which backend was left because its device was lost, why, and what goes on from where.
    pub fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// The newest numbers of an update that are known.
    pub fn last_loss(&self) -> Option<&LossParts> {
        self.known.then_some(&self.reported)
    }

    /// The newest absolute TD errors `[B]` that are known, and the number of their update. `None` before the first, and where the
    /// program reports none.
    pub fn td_errors(&self) -> Option<(u64, &[f32])> {
        let (update, errors) = &self.errors;
        (!errors.is_empty()).then_some((*update, &errors[..]))
    }

    /// Updates that were started and whose weights are not here yet.
    pub fn behind(&mut self) -> u64 {
        self.executable.device().map_or(0, |d| d.behind())
    }

    /// Whether one more update can be started now.
    pub fn has_room(&mut self) -> bool {
        self.executable.device().is_none_or(|d| d.has_room())
    }

    /// One update from the numbers that `find` knows for each data input's name. True if new weights can be read.
    pub fn update<'d>(&mut self, find: impl Fn(&str) -> Option<&'d [f32]>) -> Result<bool, LearnError> {
        match self.step_with(&find) {
            Err(LearnError::Backend(BackendError::Lost(reason))) => {
                self.fall_back(reason)?;
                self.step_with(&find)?;
                Ok(true)
            }
            other => other,
        }
    }

    /// Gathers the data in the program's order, then steps. Memory is kept from update to update.
    fn step_with<'d>(&mut self, find: impl Fn(&str) -> Option<&'d [f32]>) -> Result<bool, LearnError> {
        let next = self.updates + 1;
        let mut periods = std::mem::take(&mut self.periods);
        periods.iter_mut().for_each(|(period, due)| *due = f32::from(next.is_multiple_of(*period)));
        let mut data: Vec<&[f32]> = std::mem::take(&mut self.data);
        let mut dues = periods.iter().map(|(_, due)| std::slice::from_ref(due));
        let missing = self.program().data().find_map(|(_, input)| {
            let found = match due_period(&input.name) {
                Some(_) => dues.next(),
                None => find(&input.name),
            };
            let Some(found) = found else { return Some(input.name.clone()) };
            data.push(found);
            None
        });
        let done = match missing {
            Some(name) => Err(LearnError::Input(name)),
            None => self.step(&data),
        };
        // The standard library makes this from the same memory: no number is left, only room for them.
        data.clear();
        self.data = data.into_iter().map(|_| -> &'static [f32] { unreachable!("it was cleared") }).collect();
        self.periods = periods;
        done
    }

    fn step(&mut self, data: &[&[f32]]) -> Result<bool, LearnError> {
        if let Some(device) = self.executable.device() {
            device.start(data)?;
            (self.updates, self.given) = (self.updates + 1, self.given + 1);
            return Ok(false);
        }
        self.executable.run(data, &mut self.outputs)?;
        self.updates += 1;
        let outputs = std::mem::take(&mut self.outputs);
        let known = self.learned(self.updates, &outputs);
        self.outputs = outputs;
        known.map(|()| true)
    }

    /// Takes over what a device has finished since the last call; true if new weights can be read.
    pub fn collect(&mut self) -> Result<bool, LearnError> {
        match self.collect_reports() {
            Err(LearnError::Backend(BackendError::Lost(reason))) => {
                self.fall_back(reason)?;
                Ok(true)
            }
            other => other,
        }
    }

    fn collect_reports(&mut self) -> Result<bool, LearnError> {
        let (offset, put_at) = (self.offset, self.put_at);
        let due = self.owed || self.updates >= self.kept.0 + SNAPSHOT_EVERY;
        let Some(device) = self.executable.device() else { return Ok(false) };
        if due && let Some(snapshot) = device.snapshot()? {
            let at = (offset + snapshot.steps as i64) as u64;
            if snapshot.steps > put_at && at > self.kept.0 {
                self.kept = (at, snapshot.state.clone());
                if std::mem::take(&mut self.owed) {
                    self.remembered = Some(snapshot.state.clone());
                }
            }
        }
        let Some(report) = device.report()?.filter(|r| r.steps > put_at).cloned() else { return Ok(false) };
        self.learned((offset + report.steps as i64) as u64, &report.outputs)?;
        self.arrived = report.state;
        Ok(true)
    }

    /// Whether [`Self::state`] has everything; asks a device for it.
    pub fn is_synced(&mut self) -> Result<bool, LearnError> {
        let given = self.given;
        let Some(device) = self.executable.device() else { return Ok(true) };
        match device.snapshot() {
            Ok(snapshot) => Ok(snapshot.is_some_and(|s| s.steps == given)),
            Err(BackendError::Lost(reason)) => self.fall_back(reason).map(|()| true),
            Err(error) => Err(error.into()),
        }
    }

    /// The device is gone: its last snapshot goes on elsewhere, and the updates since are to be made again.
    fn fall_back(&mut self, reason: String) -> Result<(), LearnError> {
        let (offset, put_at) = (self.offset, self.put_at);
        if let Some(snapshot) = self.executable.device().and_then(|d| d.last_snapshot())
            && snapshot.steps > put_at
        {
            self.kept = ((offset + snapshot.steps as i64) as u64, snapshot.state.clone());
        }
        let (updates, state) = std::mem::take(&mut self.kept);
        self.updates = updates;
        self.leave(reason)?;
        self.put(state)
    }

    /// Takes the fallback in place of a backend whose device is gone; its state is to be put.
    fn leave(&mut self, reason: String) -> Result<(), LearnError> {
        let Some(backend) = self.fallback.take() else { return Err(BackendError::Lost(reason).into()) };
        self.executable = backend.compile(self.executable.program().clone())?;
        let (left, now, updates) = (&self.backend, backend.name(), self.updates);
        self.lost = Some(format!(
            "the device of the backend \"{left}\" was lost ({reason}); \"{now}\" goes on from update {updates}"
        ));
        (self.backend, self.given) = (now.into(), 0);
        Ok(())
    }

    /// Keeps what the last update reports. Its losses must be numbers.
    fn learned(&mut self, update: u64, outputs: &[Vec<f32>]) -> Result<(), LearnError> {
        for ((name, _), part) in self.reported.0.iter().zip(&self.parts) {
            let (loss, is_loss) = (outputs[*part][0], name == "loss" || name.ends_with("_loss"));
            if is_loss && !loss.is_finite() {
                return Err(LearnError::Diverged { update: self.updates, name: name.clone(), loss });
            }
        }
        self.reported.0.iter_mut().zip(&self.parts).for_each(|((_, to), part)| *to = outputs[*part][0]);
        if let Some(errors) = self.error_output {
            self.errors.0 = update;
            self.errors.1.clone_from(&outputs[errors]);
        }
        self.known = true;
        Ok(())
    }

    /// The parameters that workers exchange: name and count of numbers of each. None where the update is not in two halves.
    pub fn exchanged(&self) -> impl Iterator<Item = (&str, usize)> {
        let inputs = &self.program().inputs;
        self.exchanged.iter().map(|id| (inputs[id.0].name.as_str(), inputs[id.0].len()))
    }

    /// Their values, one parameter after another, into `out`, which is emptied first.
    pub fn read_exchanged(&self, out: &mut Vec<f32>) -> Result<(), LearnError> {
        out.clear();
        for id in &self.exchanged {
            let begin = out.len();
            out.resize(begin + self.program().inputs[id.0].len(), 0.0);
            self.executable.read(*id, &mut out[begin..])?;
        }
        Ok(())
    }

    /// Replaces them by `values`, as [`Self::read_exchanged`] gives them.
    ///
    /// # Errors
    /// [`LearnError::Parameter`] if their count is another one; nothing changes then.
    pub fn write_exchanged(&mut self, values: &[f32]) -> Result<(), LearnError> {
        let expected = self.exchanged().map(|(_, len)| len).sum();
        if values.len() != expected {
            let (name, got) = ("of a worker".into(), Some(values.len()));
            return Err(LearnError::Parameter { name, expected, got });
        }
        let mut begin = 0;
        for id in &self.exchanged {
            let end = begin + self.executable.program().inputs[id.0].len();
            self.executable.write(*id, &values[begin..end])?;
            begin = end;
        }
        Ok(())
    }

    /// The gradients of the last update in the same order into `out`, which is emptied first.
    pub fn gradients(&self, out: &mut Vec<f32>) {
        out.clear();
        self.gradients.iter().for_each(|i| out.extend_from_slice(&self.outputs[*i]));
    }

    /// Takes over the report of an update whose loss was computed elsewhere.
    pub fn report(&mut self, report: &LossParts) {
        self.reported.clone_from(report);
        self.known = true;
    }

    /// How many numbers acting parameter `i` has.
    pub fn acting_len(&self, i: usize) -> usize {
        self.program().inputs[self.acting[i].0].len()
    }

    /// The newest values of acting parameter `i`, in the program's order.
    pub fn acting(&mut self, i: usize, values: &mut [f32]) -> Result<(), LearnError> {
        if self.executable.device().is_some() {
            values.copy_from_slice(&self.arrived[i]);
            return Ok(());
        }
        Ok(self.executable.read(self.acting[i], values)?)
    }

    /// The newest acting parameters from `first` on into a network's layers; gives the number of the one after them.
    pub fn acting_layers(&mut self, first: usize, network: &mut Mlp) -> Result<usize, LearnError> {
        let parts = network.layers_mut().iter_mut().flat_map(|l| [&mut l.weight, &mut l.bias]);
        parts.zip(first..).try_fold(first, |_, (part, i)| {
            self.acting(i, part)?;
            Ok(i + 1)
        })
    }

    /// All state by name and shape: parameters, target network, optimiser. On a device, once [`Self::is_synced`] says so.
    pub fn state(&self) -> Result<Vec<NamedTensor>, LearnError> {
        let read = |(id, input): (InputId, &Input)| {
            let mut values = vec![0.0; input.len()];
            self.executable.read(id, &mut values)?;
            Ok(NamedTensor { name: input.name.clone(), shape: input.shape.clone(), values })
        };
        states(self.program()).map(read).collect()
    }

    /// Keeps a copy of all state as it is now; on a device, as it is soon.
    pub fn remember(&mut self) -> Result<(), LearnError> {
        self.owed = self.executable.device().is_some();
        if !self.owed {
            self.remembered = Some(self.state()?.into_iter().map(|tensor| tensor.values).collect());
        }
        Ok(())
    }

    /// What is remembered, by the names of the state's tensors.
    pub fn remembered(&self) -> impl Iterator<Item = NamedTensor> {
        let values = self.remembered.iter().flatten().cloned();
        let named = |((_, input), values): ((InputId, &Input), Vec<f32>)| NamedTensor {
            name: input.name.clone(),
            shape: input.shape.clone(),
            values,
        };
        states(self.program()).zip(values).map(named)
    }

    /// Goes on from what is remembered, which stays; false if nothing is. The count of updates goes on.
    pub fn go_back(&mut self) -> Result<bool, LearnError> {
        match self.remembered.clone() {
            Some(state) => self.put(state).map(|()| true),
            None => Ok(false),
        }
    }

    /// Remembers nothing any more.
    pub fn forget(&mut self) {
        (self.remembered, self.owed) = (None, false);
    }

    /// Remembers this state, given in the program's order as [`Self::found`] gives it, or nothing.
    pub fn remember_as(&mut self, state: Option<Vec<Vec<f32>>>) {
        (self.remembered, self.owed) = (state, false);
    }

    /// Puts state back that `tensor` finds by name. Nothing changes unless every tensor is there, fits and is in its range.
    pub fn restore(
        &mut self,
        updates: u64,
        tensor: &mut dyn FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<(), LearnError> {
        let found = self.found(tensor)?;
        self.updates = updates;
        self.put(found)
    }

    /// Checks that `tensor` finds this tensor of the state.
    ///
    /// # Errors
    /// [`LearnError::Continues`].
    #[cfg(feature = "every-algorithm")]
    pub(crate) fn needs(
        &self,
        missing: &'static str,
        [algorithm, of]: [&'static str; 2],
        tensor: &mut FindTensor<'_>,
    ) -> Result<(), LearnError> {
        let shape = self.shapes().find(|(name, _)| *name == missing).map(|(_, shape)| shape);
        match shape.and_then(|shape| tensor(missing, shape)) {
            Some(_) => Ok(()),
            None => Err(LearnError::Continues { algorithm, of, missing }),
        }
    }

    /// Name and shape of each tensor of the state, in the program's order.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        states(self.program()).map(|(_, input)| (input.name.as_str(), input.shape.as_slice()))
    }

    /// Takes over the state of another run, whose tensors `tensor` finds by name and shape; the other state stays as it is. For a
    /// learner without updates. Nothing changes where no layer's weights match.
    ///
    /// An optimiser's count of steps is taken if the run has all moments, and restarts otherwise: bias correction is for the
    /// youngest moments. A target network or a frozen copy (`offline.`) that the run lacks is a copy.
    ///
    /// # Errors
    /// A tensor that is not finite, or is no state of an optimiser; the backend's failure.
    pub fn adopt(&mut self, tensor: &mut FindTensor<'_>) -> Result<Adopted, LearnError> {
        let mut found = Vec::new();
        for (name, shape) in self.shapes() {
            let values = tensor(name, shape);
            if let Some(values) = &values {
                if values.iter().any(|x| !x.is_finite()) {
                    return Err(LearnError::NotFinite(name.into()));
                }
                check_optimiser(name, values)?;
            }
            found.push(values);
        }
        let names = self.shapes().map(|(name, _)| name.to_string()).collect::<Vec<_>>();
        let moment = |name: &str| name.starts_with("adam.m.") || name.starts_with("adam.v.");
        if names.iter().zip(&found).any(|(name, values)| moment(name) && values.is_none()) {
            let counts = names.iter().zip(&mut found).filter(|(name, _)| is_count(name));
            counts.for_each(|(_, values)| *values = None);
        }
        let mut adopted = Adopted::default();
        let mut state = match self.kept.0 == self.updates && self.kept.1.len() == names.len() {
            true => self.kept.1.clone(),
            false => self.state()?.into_iter().map(|tensor| tensor.values).collect(),
        };
        for (i, (name, shape)) in self.shapes().enumerate() {
            let copy = || {
                let of = COPIES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
                let values = found[names.iter().position(|other| other == of)?].as_ref()?;
                (values.len() == state[i].len()).then_some(values)
            };
            let (list, values) = match (&found[i], copy()) {
                (Some(values), _) => (&mut adopted.taken, Some(values)),
                (None, Some(values)) => (&mut adopted.copied, Some(values)),
                (None, None) => (&mut adopted.fresh, None),
            };
            list.push(name.to_string());
            adopted.shares_network |= found[i].is_some() && shape.len() >= 2 && !moment(name);
            if let Some(values) = values {
                state[i].clone_from(values);
            }
        }
        if adopted.shares_network {
            self.put(state)?;
        }
        Ok(adopted)
    }

    /// A value for all state, in the program's order.
    ///
    /// # Errors
    /// A tensor that is missing, does not fit, is not finite, or is no state of an optimiser.
    pub fn found(
        &self,
        tensor: &mut dyn FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<Vec<Vec<f32>>, LearnError> {
        let mut found = Vec::new();
        for (_, input) in states(self.program()) {
            let values = tensor(&input.name);
            let got = values.as_ref().map(Vec::len);
            match values.filter(|v| v.len() == input.len()) {
                Some(v) if v.iter().all(|x| x.is_finite()) => {
                    check_optimiser(&input.name, &v)?;
                    found.push(v);
                }
                Some(_) => return Err(LearnError::NotFinite(input.name.clone())),
                None => {
                    return Err(LearnError::Parameter {
                        name: input.name.clone(),
                        expected: input.len(),
                        got,
                    });
                }
            }
        }
        Ok(found)
    }
}

/// What stands before a parameter's name in the name of a copy: a slow one, and one that stays as the offline run had it.
pub(crate) const COPIES: [&str; 2] = ["target.", "offline."];

/// Whether a tensor of this name is an optimiser's count of steps.
fn is_count(name: &str) -> bool {
    name == "adam.t" || name.starts_with("adam.t.")
}

/// Checks the numbers of an optimiser that must not be negative: Adam's second moments and its count of steps.
fn check_optimiser(name: &str, values: &[f32]) -> Result<(), LearnError> {
    let count = is_count(name);
    let bad = |x: &&f32| **x < 0.0 || (count && x.fract() != 0.0);
    if !count && !name.starts_with("adam.v.") {
        return Ok(());
    }
    let expected = if count { "a whole number from 0" } else { "a number from 0" };
    let error = |value| LearnError::Optimiser { name: name.into(), value, expected };
    values.iter().find(bad).map_or(Ok(()), |value| Err(error(*value)))
}

/// Finds a tensor of another run by its name and shape.
pub type FindTensor<'f> = dyn FnMut(&str, &[usize]) -> Option<Vec<f32>> + 'f;

/// What every algorithm does alike with its [`Engine`].
pub trait Learner {
    /// The program's state and the backend that runs it.
    fn engine(&self) -> &Engine;

    /// The same, to change.
    fn engine_mut(&mut self) -> &mut Engine;

    /// Copies the newest weights into what acts.
    fn hand_over(&mut self) -> Result<(), LearnError>;

    /// Draws new parameters; target networks become copies, the optimiser forgets. The count of updates goes on.
    fn start_over(&mut self, rng: &mut Rng) -> Result<(), LearnError>;

    /// Takes over what a device has finished since the last call; true if it brought new weights.
    fn collect(&mut self) -> Result<bool, LearnError> {
        let news = self.engine_mut().collect()?;
        if news {
            self.hand_over()?;
        }
        Ok(news)
    }

    /// Brings everything home that [`Engine::state`] needs; false while a device is still at it.
    fn sync(&mut self) -> Result<bool, LearnError> {
        self.collect()?;
        let synced = self.engine_mut().is_synced()?;
        if synced {
            self.hand_over()?;
        }
        Ok(synced)
    }

    /// Goes on from what is remembered, see [`Engine::go_back`].
    fn go_back(&mut self) -> Result<bool, LearnError> {
        let back = self.engine_mut().go_back()?;
        if back {
            self.hand_over()?;
        }
        Ok(back)
    }

    /// Takes over another run's state, see [`Engine::adopt`].
    fn adopt(&mut self, tensor: &mut FindTensor<'_>) -> Result<Adopted, LearnError> {
        let adopted = self.engine_mut().adopt(tensor)?;
        self.hand_over()?;
        Ok(adopted)
    }

    /// Puts state back, see [`Engine::restore`].
    fn restore(
        &mut self,
        updates: u64,
        tensor: &mut dyn FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<(), LearnError> {
        self.engine_mut().restore(updates, tensor)?;
        self.hand_over()
    }
}

/// Whether an output of this name is a number of the report.
fn is_number(name: &str) -> bool {
    name != TD_ERROR && !name.starts_with(GRADIENT)
}

/// The parameters whose gradients are outputs or data of a program, in its order.
fn exchanged(program: &Program) -> Vec<InputId> {
    let travels = |name: &str| {
        let gradient = |other: &str| other.strip_prefix(GRADIENT) == Some(name);
        program.outputs.iter().any(|(output, _)| gradient(output))
            || program.data().any(|(_, input)| gradient(&input.name))
    };
    states(program).filter(|(_, input)| travels(&input.name)).map(|(id, _)| id).collect()
}

/// A program's state inputs, in its order.
fn states(program: &Program) -> impl Iterator<Item = (InputId, &Input)> {
    let all = program.inputs.iter().enumerate().filter(|(_, i)| i.role == Role::State);
    all.map(|(i, input)| (InputId(i), input))
}
