//! Submissions of one student on their way into a [`DatasetStore`]: checked, written by a thread that may block, and only
//! then acknowledged.

use crate::dataset::{DatasetStore, Put, StoreError, Submission};
use crate::serve::config::Collecting;
use oto_proto::message::Submitted;
use oto_proto::{
    Adapter, ErrorCode, ErrorMessage, Formats, Grant, Header, Hello, ServerMessage, TeacherInfo,
    TransitionFormat,
};
use std::sync::Arc;
use tokio::task::JoinHandle;
use tracing::error;

/// A student's way to its teacher's dataset.
pub(crate) struct Submissions {
    store: Arc<dyn DatasetStore>,
    collecting: Collecting,
    format: TransitionFormat,
    /// The policy's number in frames.
    policy: u32,
    student: String,
    /// The largest number of transitions in one submission.
    pub max_rows: u16,
    writing: Option<Writing>,
}

/// A submission that is being written.
struct Writing {
    submitted: Submitted,
    put: JoinHandle<Result<Put, StoreError>>,
}

/// Why a submission was not taken.
pub(crate) enum NotTaken {
    /// It may be sent again in a while.
    Busy(u32),
    /// It is refused.
    Refused(ErrorMessage),
}

impl Submissions {
    /// What is granted to a student that asked for it, if anything is: rows become part of the teacher's dataset as they
    /// are, so its spaces must be the teacher's.
    pub fn grant(
        hello: &Hello,
        formats: &Formats,
        teacher: &TeacherInfo,
        policy: u32,
        collecting: &Collecting,
        bytes: usize,
    ) -> Option<Self> {
        let same = hello.adapter.as_ref().is_none_or(|adapter| *adapter == Adapter::default())
            && hello.observation.width() == teacher.observation.width()
            && hello.action == teacher.action;
        let format = TransitionFormat::new(formats, &hello.action);
        let max_rows = format.rows_in(bytes);
        if !hello.grants.contains(&Grant::Submit) || !same || max_rows == 0 {
            return None;
        }
        Some(Submissions {
            store: collecting.store(&hello.policy)?,
            collecting: collecting.clone(),
            format,
            policy,
            student: hello.student.clone(),
            max_rows,
            writing: None,
        })
    }

    /// Takes a submission, or says why not.
    pub fn take(&mut self, frame: &[u8]) -> Result<(), NotTaken> {
        let id = Header::request_of(frame);
        let refuse = |error: ErrorMessage| NotTaken::Refused(error.about(id));
        let read = self.format.decode(frame, self.max_rows.into()).map_err(|e| refuse(e.into()))?;
        let ids = read.header().ids;
        if ids.policy != self.policy {
            let message =
                format!("expected a submission to policy {}, got one to {}", self.policy, ids.policy);
            return Err(refuse(ErrorMessage::new(ErrorCode::UnknownPolicy, message)));
        }
        if self.writing.is_some() {
            return Err(NotTaken::Busy(ids.request));
        }
        let Some(permit) = self.collecting.permit() else { return Err(NotTaken::Busy(ids.request)) };
        let mut submission = Submission {
            batch: read.batch(),
            student: self.student.clone(),
            observation: Vec::new(),
            action: Vec::new(),
            reward: Vec::with_capacity(read.rows()),
            next_observation: Vec::new(),
            terminated: Vec::with_capacity(read.rows()),
            truncated: Vec::with_capacity(read.rows()),
        };
        let mut numbers = vec![0.0; self.format.width()];
        for row in 0..read.rows() {
            let t = read.read_row(row, &mut numbers);
            submission.observation.extend_from_slice(t.observation);
            submission.action.extend_from_slice(t.action);
            submission.reward.push(t.reward);
            submission.next_observation.extend_from_slice(t.next_observation);
            submission.terminated.push(t.terminated);
            submission.truncated.push(t.truncated);
        }
        let store = self.store.clone();
        let put = self.collecting.write(move || {
            let put = store.put(&submission);
            drop(permit);
            put
        });
        let submitted = Submitted { request: ids.request, batch: read.batch() };
        self.writing = Some(Writing { submitted, put });
        Ok(())
    }

    /// Whether one is being written.
    pub fn busy(&self) -> bool {
        self.writing.is_some()
    }

    /// What to say of the submission that is being written, once it is; never, if there is none.
    pub async fn written(&mut self) -> ServerMessage {
        let Some(writing) = &mut self.writing else { return std::future::pending().await };
        let put = (&mut writing.put).await;
        let submitted = writing.submitted;
        self.writing = None;
        let error = match put {
            Ok(Ok(Put::Kept | Put::Known)) => return ServerMessage::Submitted(submitted),
            Ok(Err(error @ StoreError::Full { .. })) => {
                ErrorMessage::new(ErrorCode::TooLarge, error.to_string())
            }
            Ok(Err(error)) => self.not_kept(&error.to_string()),
            Err(error) => self.not_kept(&error.to_string()),
        };
        ServerMessage::Error(error.about(Some(submitted.request)))
    }

    /// Where the server keeps what is its operator's to know, and nothing to tell a student.
    fn not_kept(&self, error: &str) -> ErrorMessage {
        if let Some(times) = self.collecting.failures.again() {
            error!(error, times, "submissions cannot be kept");
        }
        ErrorMessage::new(ErrorCode::Internal, "the batch could not be kept")
    }
}
