//! What a sequence's next draw needs to hear from the host: a form's mask, and DRY's losses.
//!
//! Both depend on the last token's value, so a sequence that has a [`Host`] gives up the step that
//! others are ahead. Guides work on threads of their own, while the device runs the model: the
//! engine's thread hands a token over with [`Host::take`] and asks for the result when it needs it.

use std::time::Duration;

use super::dry::Repetition;
use super::guide::{Allowed, Form, Guide};
use super::params::Params;
use super::workers::{Kind, Promise, spawn};

/// What the host asks of one row's draw.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    /// Tokens that may come, a bit each as in [`Allowed::These`]; all if not given. Some token of the
    /// vocabulary may.
    pub mask: Option<Vec<u32>>,
    /// Numbers to be added to logits.
    pub biases: Vec<(u32, f32)>,
}

/// Why there is no next draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoDraw {
    /// The form is complete.
    Complete,
    /// The guide failed; the text says at what.
    Failed(String),
}

/// The host's side of one sequence.
pub struct Host {
    guide: Option<Guided>,
    repetition: Option<Repetition>,
}

enum Guided {
    /// On another thread.
    Working(Promise<Answered>),
    /// Waiting for a token.
    Idle(Box<dyn Guide>),
    /// There is nothing to come.
    Ended(NoDraw),
}

/// A guide after its work, with what it said.
type Answered = Result<(Box<dyn Guide>, Allowed), String>;

impl Host {
    /// For an answer of these parameters and this form to `prompt`; `None` if it needs nothing of the
    /// host. The guide starts its work at once.
    pub fn new(params: &Params, form: Option<&Form>, prompt: &[u32]) -> Option<Host> {
        let repetition = match params.dry.multiplier > 0.0 {
            true => Some(Repetition::new(&params.dry, prompt)),
            false => None,
        };
        let guide = form.cloned().map(|form| {
            Guided::Working(spawn(Kind::Long, move || {
                let mut guide = form.start()?;
                let allowed = guide.allowed()?;
                Ok((guide, allowed))
            }))
        });
        (guide.is_some() || repetition.is_some()).then_some(Host { guide, repetition })
    }

    /// Takes the token that was drawn; it must be one that goes on with the answer. Does not wait.
    pub fn take(&mut self, id: u32) {
        if let Some(repetition) = &mut self.repetition {
            repetition.push(id);
        }
        self.guide = match self.guide.take() {
            Some(Guided::Idle(mut guide)) => {
                Some(Guided::Working(spawn(Kind::Urgent, move || {
                    guide.accept(id)?;
                    let allowed = guide.allowed()?;
                    Ok((guide, allowed))
                })))
            }
            other => other,
        };
    }

    /// Whether [`Host::demand`] would not wait, after at most `patience` from now.
    pub fn is_ready(&mut self, patience: Duration) -> bool {
        match &mut self.guide {
            Some(Guided::Working(promise)) => promise.is_there(patience),
            _ => true,
        }
    }

    /// What the next draw, from `vocab` tokens, is to heed; waits for the guide. The tokens `banned`
    /// must not come: if the form allows no other, the answer is complete.
    ///
    /// # Errors
    /// If there is no next draw.
    pub fn demand(
        &mut self,
        banned: impl Iterator<Item = u32>,
        vocab: usize,
    ) -> Result<Demand, NoDraw> {
        let mask = match self.allowed()? {
            None => None,
            Some(mut mask) => {
                confine(&mut mask, vocab);
                if mask.iter().all(|word| *word == 0) {
                    let message = "it allows no token of the model's vocabulary";
                    return Err(self.end(NoDraw::Failed(message.into())));
                }
                for id in banned {
                    if let Some(word) = mask.get_mut(id as usize / 32) {
                        *word &= !(1 << (id % 32));
                    }
                }
                if mask.iter().all(|word| *word == 0) {
                    return Err(self.end(NoDraw::Complete));
                }
                Some(mask)
            }
        };
        let biases = self.repetition.as_ref().map(Repetition::biases);
        Ok(Demand {
            mask,
            biases: biases.unwrap_or_default(),
        })
    }

    fn allowed(&mut self) -> Result<Option<Vec<u32>>, NoDraw> {
        match self.guide.take() {
            None => Ok(None),
            Some(Guided::Working(promise)) => match promise.wait().and_then(|answered| answered) {
                Ok((guide, Allowed::These(mask))) => {
                    self.guide = Some(Guided::Idle(guide));
                    Ok(Some(mask))
                }
                Ok((guide, Allowed::Any)) => {
                    self.guide = Some(Guided::Idle(guide));
                    Ok(None)
                }
                Ok((_, Allowed::Nothing)) => Err(self.end(NoDraw::Complete)),
                Err(message) => Err(self.end(NoDraw::Failed(message))),
            },
            Some(Guided::Idle(guide)) => {
                self.guide = Some(Guided::Idle(guide));
                let message = "asked for the next tokens twice after one token";
                Err(NoDraw::Failed(message.into()))
            }
            Some(Guided::Ended(why)) => Err(self.end(why)),
        }
    }

    fn end(&mut self, why: NoDraw) -> NoDraw {
        self.guide = Some(Guided::Ended(why.clone()));
        why
    }
}

/// Clears the bits from `vocab` on.
fn confine(mask: &mut Vec<u32>, vocab: usize) {
    mask.truncate(vocab.div_ceil(32));
    if let Some(last) = mask.get_mut(vocab / 32) {
        *last &= (1u32 << (vocab % 32)) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Allows what it is told, in turn, and then nothing.
    struct Told(Vec<Result<Vec<u32>, String>>);

    impl Guide for Told {
        fn accept(&mut self, id: u32) -> Result<(), String> {
            match id {
                13 => Err("13 is not allowed here".into()),
                14 => panic!("14 is too much"),
                _ => Ok(()),
            }
        }

        fn allowed(&mut self) -> Result<Allowed, String> {
            match self.0.is_empty() {
                true => Ok(Allowed::Nothing),
                false => self.0.remove(0).map(Allowed::These),
            }
        }
    }

    fn host(masks: &[Result<Vec<u32>, String>]) -> Host {
        let masks = masks.to_vec();
        let form = Form::new(move || Ok(Box::new(Told(masks.clone()))));
        Host::new(&Params::default(), Some(&form), &[1]).unwrap()
    }

    fn mask(host: &mut Host, banned: &[u32], vocab: usize) -> Result<Vec<u32>, NoDraw> {
        host.demand(banned.iter().copied(), vocab)
            .map(|demand| demand.mask.unwrap())
    }

    fn failed(text: &str) -> Result<Vec<u32>, NoDraw> {
        Err(NoDraw::Failed(text.into()))
    }

    #[test]
    fn masks_come_in_turn_and_then_the_end() {
        let mut host = host(&[Ok(vec![0b1010]), Ok(vec![u32::MAX; 9])]);
        assert_eq!(mask(&mut host, &[], 40), Ok(vec![0b1010]));
        host.take(1);
        assert_eq!(mask(&mut host, &[], 40), Ok(vec![u32::MAX, 0xff]));
        host.take(2);
        assert_eq!(mask(&mut host, &[], 40), Err(NoDraw::Complete));
        host.take(3);
        assert_eq!(mask(&mut host, &[], 40), Err(NoDraw::Complete));
    }

    #[test]
    fn what_is_banned_leaves_the_mask_or_ends_the_answer() {
        let masks = || host(&[Ok(vec![0b1010])]);
        assert_eq!(mask(&mut masks(), &[1, 200], 40), Ok(vec![0b1000]));
        assert_eq!(mask(&mut masks(), &[1, 3], 40), Err(NoDraw::Complete));
        let outside = "it allows no token of the model's vocabulary";
        assert_eq!(mask(&mut masks(), &[], 1), failed(outside));
        assert_eq!(mask(&mut host(&[Ok(Vec::new())]), &[], 32), failed(outside));
        assert_eq!(
            mask(&mut host(&[Ok(vec![1 << 31])]), &[], 32),
            Ok(vec![1 << 31])
        );
    }

    #[test]
    fn failures_and_panics_of_a_guide_are_told() {
        let two = [Ok(vec![1]), Ok(vec![1])];
        for (id, text) in [
            (13, "13 is not allowed here"),
            (14, "a panic: 14 is too much"),
        ] {
            let mut host = host(&two);
            assert!(mask(&mut host, &[], 40).is_ok());
            host.take(id);
            assert_eq!(mask(&mut host, &[], 40), failed(text));
            assert_eq!(mask(&mut host, &[], 40), failed(text));
        }
        let mut slow = host(&[Err("out of time".into())]);
        assert_eq!(mask(&mut slow, &[], 40), failed("out of time"));
        let never = Form::new(|| Err("no such form".into()));
        let mut host = Host::new(&Params::default(), Some(&never), &[1]).unwrap();
        assert_eq!(mask(&mut host, &[], 40), failed("no such form"));
    }

    #[test]
    fn what_needs_no_host_has_none() {
        let mut params = Params::default();
        assert!(Host::new(&params, None, &[1]).is_none());
        params.dry.multiplier = 1.0;
        params.dry.allowed_length = 1;
        let mut host = Host::new(&params, None, &[5, 6, 5]).unwrap();
        let biases = |host: &mut Host| host.demand(std::iter::empty(), 40).unwrap().biases;
        assert_eq!(biases(&mut host), [(6, -1.0)]);
        host.take(7);
        assert_eq!(biases(&mut host), []);
    }
}
