//! Where memory comes from: jemalloc, which costs less than glibc's on bodies that pass through, and
//! gives memory back when idle.
//!
//! Pingora takes a buffer of 64 KiB for each answer that it reads over HTTP/1, however short. jemalloc
//! keeps free pieces of up to 32 KiB at hand for each thread; larger ones it takes from arenas, which
//! threads share, under a lock, and twice a request. So each thread keeps some pieces of that size here.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ptr;

use tikv_jemallocator::Jemalloc;

/// The size that is kept: of Pingora's buffers for bodies.
const PIECE: usize = 64 << 10;
/// Pieces that a thread keeps at most. One is taken when an answer begins and free again at its end,
/// mostly before another begins. Those that are free stay: 256 KiB a thread at most, or what of them has
/// been written to.
const MOST: usize = 4;

/// jemalloc, and pieces of 64 KiB at hand.
#[derive(Debug)]
pub struct Allocator;

/// The free pieces of a thread: the first of `count`.
struct Kept {
    pieces: [Cell<*mut u8>; MOST],
    count: Cell<usize>,
}

thread_local! {
    static KEPT: Kept = const {
        Kept {
            pieces: [const { Cell::new(ptr::null_mut()) }; MOST],
            count: Cell::new(0),
        }
    };
}

impl Kept {
    fn take(&self) -> Option<*mut u8> {
        let last = self.count.get().checked_sub(1)?;
        self.count.set(last);
        Some(self.pieces.get(last)?.get())
    }

    /// Whether there is room for it.
    fn put(&self, piece: *mut u8) -> bool {
        let count = self.count.get();
        let Some(place) = self.pieces.get(count) else {
            return false;
        };
        place.set(piece);
        self.count.set(count + 1);
        true
    }
}

impl Drop for Kept {
    /// The thread ends.
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        while let Some(piece) = self.take() {
            // SAFETY: jemalloc has given it with this layout, and nobody has it: `put` has taken it from
            // who gave it back.
            unsafe { Jemalloc.dealloc(piece, LAYOUT) };
        }
    }
}

/// Of a piece.
const LAYOUT: Layout = match Layout::from_size_align(PIECE, 1) {
    Ok(layout) => layout,
    Err(_) => panic!("the size of a piece is no size"),
};

// SAFETY: everything is jemalloc's, but that a piece with `LAYOUT` which is given back may be given out
// again with `LAYOUT`, once, because `take` forgets it. Between the two nobody else has it: it stays in one
// thread. Nothing here panics. That a thread looks for its pieces for the first time may take memory, to
// have them dropped at its end: glibc's own, or a list of this allocator's, whose layout is not `LAYOUT`, and
// which is why the layout is looked at first.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout == LAYOUT
            && let Ok(Some(piece)) = KEPT.try_with(Kept::take)
        {
            return piece;
        }
        unsafe { Jemalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        if layout == LAYOUT && KEPT.try_with(|kept| kept.put(piece)) == Ok(true) {
            return;
        }
        unsafe { Jemalloc.dealloc(piece, layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { Jemalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { Jemalloc.realloc(piece, layout, size) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Works as a program does that has it, for what is written here.
    #[allow(unsafe_code)]
    fn take(size: usize) -> (*mut u8, Layout) {
        let layout = Layout::from_size_align(size, 1).unwrap();
        // SAFETY: the size is not zero, and the pieces are as large as what is written.
        let piece = unsafe {
            let piece = Allocator.alloc(layout);
            piece.write_bytes(1, size);
            piece
        };
        (piece, layout)
    }

    #[allow(unsafe_code)]
    fn give_back((piece, layout): (*mut u8, Layout)) {
        // SAFETY: it comes from `take`, and each is given back once.
        unsafe { Allocator.dealloc(piece, layout) };
    }

    fn kept() -> usize {
        KEPT.with(|kept| kept.count.get())
    }

    #[test]
    fn a_thread_gets_its_piece_again_and_keeps_no_more_than_some() {
        let first = take(PIECE);
        give_back(first);
        assert_eq!(kept(), 1);
        let again = take(PIECE);
        assert_eq!((again.0, kept()), (first.0, 0));
        let more: Vec<_> = (0..MOST + 3).map(|_| take(PIECE)).collect();
        let mut places: Vec<_> = more.iter().map(|(piece, _)| *piece).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), more.len(), "two have the same piece");
        assert!(!places.contains(&again.0));
        more.into_iter().for_each(give_back);
        assert_eq!(kept(), MOST);
        give_back(again);
        assert_eq!(kept(), MOST);
    }

    #[test]
    fn pieces_of_other_sizes_are_not_kept_and_what_grows_is_as_it_was() {
        for size in [1, PIECE - 1, PIECE + 1] {
            give_back(take(size));
            assert_eq!(kept(), 0, "{size}");
        }
        give_back(take(PIECE));
        let (piece, layout) = take(PIECE);
        #[allow(unsafe_code)]
        // SAFETY: it comes from `take`; of what has grown the first half has been written.
        let (grown, there) = unsafe {
            let grown = Allocator.realloc(piece, layout, 2 * PIECE);
            (grown, std::slice::from_raw_parts(grown, PIECE).to_vec())
        };
        assert_eq!(there, vec![1; PIECE]);
        give_back((grown, Layout::from_size_align(2 * PIECE, 1).unwrap()));
        assert_eq!(kept(), 0);
    }

    #[test]
    fn what_is_to_be_zero_or_aligned_is_no_kept_piece() {
        give_back(take(PIECE));
        let aligned = Layout::from_size_align(PIECE, 4096).unwrap();
        #[allow(unsafe_code)]
        // SAFETY: the sizes are not zero; of the first all is initialised, and it is as large as is read.
        let (zero, first, second) = unsafe {
            let first = Allocator.alloc_zeroed(LAYOUT);
            let zero = std::slice::from_raw_parts(first, PIECE).to_vec();
            (zero, first, Allocator.alloc(aligned))
        };
        assert_eq!(zero, vec![0; PIECE]);
        assert_eq!((second.addr() % 4096, kept()), (0, 1));
        give_back((second, aligned));
        assert_eq!(kept(), 1);
        give_back((first, LAYOUT));
    }

    #[test]
    fn a_piece_may_be_given_back_in_another_thread() {
        let (piece, layout) = take(PIECE);
        let place = piece.expose_provenance();
        let kept_there = std::thread::spawn(move || {
            give_back((ptr::with_exposed_provenance_mut(place), layout));
            kept()
        });
        assert_eq!((kept_there.join().unwrap(), kept()), (1, 0));
    }
}
