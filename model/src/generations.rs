//! What was asked for lately, in two generations: when the young one is full it becomes the old one, and what
//! was old is forgotten. What is asked for again is young again, without a list of who was asked for when.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// Values by key, each with what it costs.
#[derive(Debug)]
pub struct Generations<K, V> {
    /// Of a generation, two of which are kept.
    cost_max: usize,
    young: Generation<K, V>,
    old: Generation<K, V>,
}

#[derive(Debug)]
struct Generation<K, V> {
    values: HashMap<K, (V, usize)>,
    cost: usize,
}

impl<K, V> Default for Generation<K, V> {
    fn default() -> Self {
        Self { values: HashMap::new(), cost: 0 }
    }
}

impl<K: Hash + Eq, V> Generation<K, V> {
    fn take<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<(K, V, usize)>
    where
        K: Borrow<Q>,
    {
        let (key, (value, cost)) = self.values.remove_entry(key)?;
        self.cost -= cost;
        Some((key, value, cost))
    }
}

impl<K: Hash + Eq, V: Clone> Generations<K, V> {
    /// Makes one whose values cost twice `cost_max` together at most.
    pub fn new(cost_max: usize) -> Self {
        Self { cost_max, young: Generation::default(), old: Generation::default() }
    }

    /// Returns what all values cost.
    pub fn cost(&self) -> usize {
        self.young.cost + self.old.cost
    }

    /// Returns a value, which is young from now on.
    pub fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if let Some((value, _)) = self.young.values.get(key) {
            return Some(value.clone());
        }
        let (key, value, cost) = self.old.take(key)?;
        self.put(key, value.clone(), cost);
        Some(value)
    }

    /// Keeps a value, in the stead of what the key had.
    pub fn put(&mut self, key: K, value: V, cost: usize) {
        self.young.take(&key);
        if self.young.cost + cost > self.cost_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.cost += cost;
        self.young.values.insert(key, (value, cost));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_lately_is_kept_within_the_cost() {
        let mut kept = Generations::new(4);
        for number in 0..20 {
            kept.put(number, number, 1);
            assert_eq!(kept.get(&0), Some(0), "it is asked for again and again");
            assert!(kept.cost() <= 8);
        }
        assert_eq!(kept.get(&1), None, "nobody asked for it");
        kept.put(0, 100, 2);
        assert_eq!(kept.get(&0), Some(100));
    }
}
