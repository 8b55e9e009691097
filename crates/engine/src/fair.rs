//! Fair shares of those who send requests: the virtual token counter of Sheng et al. (OSDI 2024,
//! "Fairness in Serving Large Language Models").
//!
//! A share is an adapter (or the base) and a tenant. Each has a counter of what it was given: one
//! for every token of a prompt that was computed, two for every token that was generated, divided
//! by the share's weight. The next to be admitted is the oldest request of the share with the
//! least. Nothing is set aside for anybody: who is alone gets everything. A share that comes back
//! after it had nothing to do is lifted to the least of those who have, so that idling saves
//! nothing up.

use std::collections::BTreeMap;

use multigraft_model::AdapterHash;

use crate::tenant::Tenant;

/// Whose request it is. At whichever scale it uses its adapter, it takes from the same share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShareId {
    pub(crate) adapter: Option<AdapterHash>,
    pub(crate) tenant: Option<Tenant>,
    /// Whether it is served only while nobody else wants anything.
    pub(crate) background: bool,
}

/// What a token of a prompt counts.
const PROMPT: u64 = 1;

/// What a generated token counts: it takes a step of its own.
const GENERATED: u64 = 2;

/// Counters are in fractions of a token, so that weights divide them well.
const FRACTION: f64 = 1024.0;

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    shares: BTreeMap<ShareId, Share>,
}

#[derive(Debug, Default)]
struct Share {
    /// What it was given, over its weight.
    served: u64,
    /// Of its newest request.
    weight: f32,
    /// Requests that wait or run.
    live: usize,
}

impl Shares {
    /// A request has come that gives its share this weight, above 0.
    pub(crate) fn enter(&mut self, id: ShareId, weight: f32) {
        let floor = self.floor(id.background);
        let share = self.shares.entry(id).or_default();
        share.weight = weight;
        if share.live == 0 {
            share.served = share.served.max(floor);
        }
        share.live += 1;
    }

    /// A request has gone.
    pub(crate) fn leave(&mut self, id: ShareId) {
        if let Some(share) = self.shares.get_mut(&id) {
            share.live = share.live.saturating_sub(1);
        }
        // Who would be lifted anyway need not be remembered.
        let floors = [self.floor(false), self.floor(true)];
        self.shares
            .retain(|id, share| share.live > 0 || share.served > floors[usize::from(id.background)]);
    }

    /// What a newcomer begins with: the least of those who have something to do; if nobody has, the
    /// most that anybody was given, for then nobody took anything from anybody. The background
    /// takes nothing from others, so it is apart.
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

    /// So many tokens of a prompt are going to be computed.
    pub(crate) fn charge_prompt(&mut self, id: ShareId, tokens: usize) {
        self.charge(id, PROMPT * tokens as u64);
    }

    /// A token was generated.
    pub(crate) fn charge_token(&mut self, id: ShareId) {
        self.charge(id, GENERATED);
    }

    fn charge(&mut self, id: ShareId, cost: u64) {
        if let Some(share) = self.shares.get_mut(&id) {
            // A float that is too large becomes the largest number.
            share.served = share
                .served
                .saturating_add((cost as f64 * FRACTION / f64::from(share.weight)) as u64);
        }
    }

    /// What a share was given over its weight, in fractions of a token.
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
    fn idling_saves_nothing_up_and_loses_no_debt() {
        let mut shares = Shares::default();
        let (a, b, c) = (id("a"), id("b"), id("c"));
        shares.enter(a, 1.0);
        shares.enter(b, 1.0);
        shares.charge_prompt(a, 100);
        shares.charge_token(b);
        shares.enter(c, 1.0);
        assert_eq!(shares.served(c), tokens(2), "as the least of those who are there");
        // One that took much and pauses is no better off afterwards.
        shares.leave(a);
        shares.enter(a, 1.0);
        assert_eq!(shares.served(a), tokens(100));
    }

    fn tokens(count: u64) -> u64 {
        count * FRACTION as u64
    }

    #[test]
    fn a_share_of_twice_the_weight_pays_half_for_a_token() {
        let mut shares = Shares::default();
        let (light, heavy) = (id("light"), id("heavy"));
        shares.enter(light, 0.5);
        shares.enter(heavy, 2.0);
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
            shares.enter(id(name), 1.0);
            shares.charge_prompt(id(name), 10);
        }
        for name in ["a", "b", "c"] {
            shares.leave(id(name));
        }
        assert!(shares.shares.is_empty(), "{shares:?}");
    }
}
