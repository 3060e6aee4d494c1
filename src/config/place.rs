//! Where a key stands in the config, as a path: `routes[0].verify.tolerance`.

use std::fmt;

/// The path of a key from the config's root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Place {
    pub fn root() -> Self {
        Self::default()
    }
    pub fn of(steps: &[Step]) -> Self {
        Self(steps.to_vec())
    }
    pub fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }
    pub fn index(&self, index: usize) -> Self {
        self.then(Step::Index(index))
    }
    pub fn then(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
    pub fn steps(&self) -> &[Step] {
        &self.0
    }
    /// Whether what stands here may be a secret, going by the keys on the way.
    pub fn is_secret(&self) -> bool {
        let mut keys = self.0.iter().rev().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        });
        let last = keys.next();
        last.is_some_and(|key| key != "key" && super::source::is_secret_key(key))
            || keys.next().is_some_and(|key| key != "key" && super::source::is_secret_key(key))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if i == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
