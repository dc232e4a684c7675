//! Subscriptions that come and go: what was told of one, held against whether it is there and how.

use uuid::Uuid;

/// How far a change is: nobody asked for it, somebody did, or it was answered.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Change {
    #[default]
    Not,
    Asked,
    Answered,
}

/// The newest life of a name.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Passing {
    pub made: Change,
    pub deleted: Change,
    /// Of the answer.
    pub epoch: Option<Uuid>,
    /// Those of earlier lives.
    pub earlier: Vec<Uuid>,
    /// The newest that was answered.
    pub published: u64,
    /// A setting that only grows: as answered, and as asked for.
    pub limit: (u64, u64),
}

/// What a server says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PassingThere {
    pub epoch: Uuid,
    pub last: u64,
    pub limit: u64,
}

/// What is wrong with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PassingFinding {
    /// It was made, and nobody deleted it.
    Gone,
    /// It was deleted, and that was answered; or nobody made it.
    NotGone,
    /// It is not the one that was made.
    AnotherLife,
    /// Its newest publications are gone.
    LostEnd { from: u64, to: u64 },
    /// A setting is not the one that was answered.
    OtherSetting { limit: u64 },
}

impl Passing {
    /// Everything that is wrong with what is there.
    pub fn check(&self, there: Option<PassingThere>) -> Vec<PassingFinding> {
        let Some(there) = there else {
            let must_be_there = self.made == Change::Answered && self.deleted == Change::Not;
            return must_be_there
                .then_some(PassingFinding::Gone)
                .into_iter()
                .collect();
        };
        let mut findings = Vec::new();
        if self.deleted == Change::Answered || self.made == Change::Not {
            findings.push(PassingFinding::NotGone);
        }
        let is_another = self.epoch.is_some_and(|epoch| epoch != there.epoch);
        if is_another || self.earlier.contains(&there.epoch) {
            findings.push(PassingFinding::AnotherLife);
        }
        if there.last < self.published {
            findings.push(PassingFinding::LostEnd {
                from: there.last + 1,
                to: self.published,
            });
        }
        if !(self.limit.0..=self.limit.1).contains(&there.limit) {
            let limit = there.limit;
            findings.push(PassingFinding::OtherSetting { limit });
        }
        findings
    }

    /// After a check that found nothing: what was in the balance is known now.
    pub fn absorb(&mut self, there: Option<PassingThere>) {
        match there {
            Some(there) => {
                self.made = Change::Answered;
                self.deleted = Change::Not;
                self.epoch = Some(there.epoch);
                self.published = there.last;
                self.limit = (there.limit, there.limit);
            }
            None => self.deleted = Change::Answered,
        }
    }

    /// The name's next life.
    pub fn again(&self, limit: u64) -> Self {
        let mut earlier = self.earlier.clone();
        earlier.extend(self.epoch);
        Self {
            made: Change::Asked,
            earlier,
            limit: (limit, limit),
            ..Self::default()
        }
    }
}
