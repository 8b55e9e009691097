//! Fairness among shares: the virtual token counter of Sheng et al. (OSDI 2024, "Fairness in
//! Serving Large Language Models").
//!
//! A share is an adapter (or the base) and a tenant. Its counter grows by one for every prompt
//! token that is computed and by two for every token that is generated, divided by the share's
//! weight. Preempted sequences are admitted first. Then comes the request with the lowest
//! `priority` value of the share with the lowest counter; ties go to the oldest. No capacity is
//! reserved: a lone share gets all of it. The counter of a share that returns after a time without
//! requests is raised to the lowest counter among active shares, so unused capacity is not carried
//! over.

use std::collections::BTreeMap;

use multigraft_model::AdapterHash;

use crate::tenant::Tenant;

/// The share that a request takes from. The adapter's scale makes no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShareId {
    pub(crate) adapter: Option<AdapterHash>,
    pub(crate) tenant: Option<Tenant>,
    /// Whether its requests are served only while there are no others.
    pub(crate) background: bool,
}

/// Cost of a prompt token.
const PROMPT: u64 = 1;

/// Cost of a generated token, which needs a step of its own.
const GENERATED: u64 = 2;

/// Counters are in fractions of a token, so that dividing by a weight loses little.
const FRACTION: f64 = 1024.0;

/// The counters of all shares.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    shares: BTreeMap<ShareId, Share>,
}

#[derive(Debug, Default)]
struct Share {
    /// Its counter, in fractions of a token.
    served: u64,
    /// The weight of its newest request.
    weight: f32,
    /// Number of its requests that wait or run.
    live: usize,
}

impl Shares {
    /// Counts a new request, which sets the weight of its share, above 0.
    pub(crate) fn join(&mut self, id: ShareId, weight: f32) {
        let floor = self.floor(id.background);
        let share = self.shares.entry(id).or_default();
        share.weight = weight;
        if share.live == 0 {
            share.served = share.served.max(floor);
        }
        share.live += 1;
    }

    /// Counts a request that ended.
    pub(crate) fn leave(&mut self, id: ShareId) {
        if let Some(share) = self.shares.get_mut(&id) {
            share.live = share.live.saturating_sub(1);
        }
        // A share whose counter would be raised anyway need not be remembered.
        let floors = [self.floor(false), self.floor(true)];
        self.shares
            .retain(|id, share| share.live > 0 || share.served > floors[usize::from(id.background)]);
    }

    /// The counter that a new share begins with: the lowest of active shares, or, if none is
    /// active, the highest of all, because idle shares have no claim on each other. Background
    /// shares are counted separately, because they take nothing from others.
    fn floor(&self, background: bool) -> u64 {
        let shares = self.shares.iter();
        let shares = shares
            .filter(|(id, _)| id.background == background)
            .map(|(_, share)| share);
        let live = shares.clone().filter(|share| share.live > 0);
        let least = live.map(|share| share.served).min();
        let most = shares.map(|share| share.served).max();
        least.or(most).unwrap_or(0)
    }

    /// Charges `tokens` prompt tokens.
    pub(crate) fn charge_prompt(&mut self, id: ShareId, tokens: usize) {
        self.charge(id, PROMPT * tokens as u64);
    }

    /// Charges a generated token.
    pub(crate) fn charge_token(&mut self, id: ShareId) {
        self.charge(id, GENERATED);
    }

    fn charge(&mut self, id: ShareId, cost: u64) {
        if let Some(share) = self.shares.get_mut(&id) {
            // The conversion saturates.
            share.served = share
                .served
                .saturating_add((cost as f64 * FRACTION / f64::from(share.weight)) as u64);
        }
    }

    /// A share's counter, in fractions of a token.
    pub(crate) fn served(&self, id: ShareId) -> u64 {
        self.shares.get(&id).map_or(0, |share| share.served)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> ShareId {
        ShareId {
            adapter: None,
            tenant: Some(Tenant::new(name)),
            background: false,
        }
    }

    #[test]
    fn unused_share_is_not_carried_over_and_debt_remains() {
        let mut shares = Shares::default();
        let (a, b, c) = (id("a"), id("b"), id("c"));
        shares.join(a, 1.0);
        shares.join(b, 1.0);
        shares.charge_prompt(a, 100);
        shares.charge_token(b);
        shares.join(c, 1.0);
        assert_eq!(shares.served(c), tokens(2), "as the least of those who are there");
        // One that took much and pauses is no better off afterwards.
        shares.leave(a);
        shares.join(a, 1.0);
        assert_eq!(shares.served(a), tokens(100));
    }

    fn tokens(count: u64) -> u64 {
        count * FRACTION as u64
    }

    #[test]
    fn a_share_of_twice_the_weight_pays_half_for_a_token() {
        let mut shares = Shares::default();
        let (light, heavy) = (id("light"), id("heavy"));
        shares.join(light, 0.5);
        shares.join(heavy, 2.0);
        shares.charge_prompt(light, 10);
        shares.charge_prompt(heavy, 40);
        assert_eq!(
            (shares.served(light), shares.served(heavy)),
            (tokens(20), tokens(20))
        );
    }

    #[test]
    fn nothing_is_remembered_of_an_idle_machine() {
        let mut shares = Shares::default();
        for name in ["a", "b", "c"] {
            shares.join(id(name), 1.0);
            shares.charge_prompt(id(name), 10);
        }
        for name in ["a", "b", "c"] {
            shares.leave(id(name));
        }
        assert!(shares.shares.is_empty(), "{shares:?}");
    }
}
