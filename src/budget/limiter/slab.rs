//! Requests in flight, under keys that are never mistaken for each other.

/// Values under keys; the key of a value that was taken finds nothing, even when its place is used
/// again.
#[derive(Debug, Clone)]
pub(crate) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    vacant: Vec<u32>,
}

/// Where an entry is: a place, and how many used it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SlabKey {
    place: u32,
    turn: u32,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Slab<T> {
        Slab {
            places: Vec::new(),
            vacant: Vec::new(),
        }
    }

    pub(crate) fn insert(&mut self, value: T) -> SlabKey {
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            (self.places.len() - 1) as u32
        });
        let (turn, slot) = &mut self.places[place as usize];
        *slot = Some(value);
        SlabKey { place, turn: *turn }
    }

    pub(crate) fn find(&mut self, key: SlabKey) -> Option<&mut T> {
        let (turn, slot) = self.places.get_mut(key.place as usize)?;
        slot.as_mut().filter(|_| *turn == key.turn)
    }

    /// All of them under their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlabKey, &T)> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(place, (turn, slot))| {
            let (place, turn) = (place as u32, *turn);
            Some((SlabKey { place, turn }, slot.as_ref()?))
        })
    }

    pub(crate) fn take(&mut self, key: SlabKey) -> Option<T> {
        self.find(key)?;
        let (turn, slot) = &mut self.places[key.place as usize];
        *turn = turn.wrapping_add(1);
        self.vacant.push(key.place);
        slot.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_key_finds_nothing() {
        let mut entries = Slab::new();
        let first = entries.insert('a');
        assert_eq!(entries.take(first), Some('a'));
        let second = entries.insert('b');
        assert_eq!(first.place, second.place);
        assert_eq!(entries.find(first), None);
        assert_eq!(entries.take(first), None);
        assert_eq!(entries.iter().collect::<Vec<_>>(), [(second, &'b')]);
        assert_eq!(entries.find(second), Some(&mut 'b'));
    }
}
