//! One budget's money: what is spent, what is set aside, and what is left. Arithmetic only; nothing
//! here waits.
//!
//! Where several processes share a budget, each has a slice of it. The slice of a process that is not
//! the newest is an amount that only ever gets smaller while there is a newer one; the newest has the
//! rest of the limit. So whatever one process knows late about another, all slices together are at
//! most the limit.

use super::window::{Span, Window};

/// A whole in parts: the share of limits that a process has of accounts that nobody had before.
pub const WHOLE: u32 = 1 << 16;

/// Seconds by which clocks may differ; what is further back was set back.
const SAME_CLOCK: i64 = 60;

/// Another process that was there before this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elder {
    /// Its number in the store.
    pub process: i64,
    /// Its share of accounts that it has said nothing of, of [`WHOLE`]; `None` while it has not said
    /// yet that it shares at all: everything is its.
    pub parts: Option<u32>,
}

/// What an elder said of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Theirs {
    process: i64,
    slice: u64,
    /// Of the slice, in the window that begins there.
    spent: u64,
    start: i64,
}

/// An account's money, in pico-dollars.
#[derive(Debug, Clone)]
pub struct State {
    window: Window,
    limit: u64,
    span: Span,
    /// In this window.
    spent: u64,
    /// In the window before, of rules that slide.
    previous: u64,
    /// Set aside for calls that run.
    held: u64,
    /// No more than so much is this process's, which is not the newest.
    slice: Option<u64>,
    /// What is not this process's.
    theirs: Vec<Theirs>,
    /// It is in the list of those to be written.
    pub is_listed: bool,
}

/// What is written of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// The rule's, as last seen.
    pub window: Window,
    /// The rule's, as last seen.
    pub limit: u64,
    /// The first second of the window.
    pub start: i64,
    /// In this window.
    pub spent: u64,
    /// In the window before.
    pub previous: u64,
    /// See [`State`].
    pub slice: Option<u64>,
}

/// What an account looks like at one moment, in pico-dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The rule's.
    pub window: Window,
    /// The rule's.
    pub limit: u64,
    /// What counts as spent now, by all processes as far as is known.
    pub spent: u64,
    /// Set aside in this process.
    pub held: u64,
    /// What other processes may still spend.
    pub elsewhere: u64,
    /// What calls of this process may still set aside.
    pub remaining: u64,
    /// When the window turns, in seconds since 1970.
    pub end: i64,
}

impl State {
    /// An account that was never used. `slice` is what this process may have of it where it is not
    /// the newest.
    pub fn new(window: Window, limit: u64, slice: Option<u64>) -> Self {
        Self {
            window,
            limit,
            span: Span::default(),
            spent: 0,
            previous: 0,
            held: 0,
            slice,
            theirs: Vec::new(),
            is_listed: false,
        }
    }

    /// What was written.
    pub fn from_figures(figures: Figures) -> Self {
        let mut state = Self::new(figures.window, figures.limit, figures.slice);
        state.span = figures.window.span(figures.start);
        state.spent = figures.spent;
        state.previous = figures.previous;
        state
    }

    /// What is to be written.
    pub fn figures(&self) -> Figures {
        Figures {
            window: self.window,
            limit: self.limit,
            start: self.span.start,
            spent: self.spent,
            previous: self.previous,
            slice: self.slice,
        }
    }

    /// The rule as it is now; changes nothing of what is spent.
    pub fn follow(&mut self, window: Window, limit: u64, now: i64) {
        self.limit = limit;
        self.turn(window, now);
    }

    /// Goes to the window in which `now` lies. Money that was spent in a window that reaches into
    /// it, as windows of another length do, counts in full.
    fn turn(&mut self, window: Window, now: i64) {
        self.window = window;
        let is_set_back = now < self.span.start - SAME_CLOCK;
        let now = if is_set_back {
            now
        } else {
            now.max(self.span.start)
        };
        let span = window.span(now);
        if span == self.span {
            return;
        }
        let before = window.span(span.start - 1);
        if self.span.end <= span.start {
            let counts = window.slides() && self.span.end > before.start;
            self.previous = if counts { self.spent } else { 0 };
            self.spent = 0;
        } else if !window.slides() {
            self.previous = 0;
        }
        self.span = span;
    }

    /// What counts as spent: of the window before its share that is less than a window ago, rounded
    /// up.
    fn counted(&self, now: i64) -> u64 {
        if self.previous == 0 || !self.window.slides() {
            return self.spent;
        }
        self.spent
            .saturating_add(share(self.previous, self.span, now))
    }

    /// What of the limit belongs to others.
    fn elsewhere(&self, elders: &[Elder]) -> u64 {
        let of = |elder: &Elder| {
            let said = self
                .theirs
                .iter()
                .find(|said| said.process == elder.process);
            match (said, elder.parts) {
                (_, None) => self.limit,
                (Some(said), Some(_)) => said.slice,
                (None, Some(parts)) => parts_of(self.limit, parts),
            }
        };
        elders.iter().map(of).fold(0, u64::saturating_add)
    }

    /// What of the limit is this process's.
    fn cap(&self, elders: &[Elder]) -> u64 {
        match self.slice {
            Some(slice) => slice.min(self.limit),
            None => self.limit.saturating_sub(self.elsewhere(elders)),
        }
    }

    /// Whether so much more fits; nothing always does.
    pub fn fits(&self, asked: u64, elders: &[Elder], now: i64) -> bool {
        if asked == 0 {
            return true;
        }
        let taken = u128::from(self.counted(now)) + u128::from(self.held);
        taken + u128::from(asked) <= u128::from(self.cap(elders))
    }

    /// Sets so much aside, which must fit.
    pub fn hold(&mut self, asked: u64) {
        self.held = self.held.saturating_add(asked);
    }

    /// Gives back what was set aside.
    pub fn free(&mut self, asked: u64) {
        self.held = self.held.saturating_sub(asked);
    }

    /// Books what a call cost for which so much was set aside.
    pub fn settle(&mut self, asked: u64, cost: u64, now: i64) {
        self.free(asked);
        self.turn(self.window, now);
        self.spent = self.spent.saturating_add(cost);
    }

    /// Whether nothing would be lost if it were forgotten.
    pub fn is_worthless(&mut self, now: i64) -> bool {
        self.turn(self.window, now);
        self.held == 0 && self.counted(now) == 0 && self.slice.is_none() && self.theirs.is_empty()
    }

    /// This process is not the newest any more: it keeps what it has spent and set aside, and half
    /// of what is left.
    pub fn give_half(&mut self, elders: &[Elder], now: i64) {
        self.turn(self.window, now);
        let used = self.counted(now).saturating_add(self.held);
        let left = self.cap(elders).saturating_sub(used);
        self.slice = Some(used.saturating_add(left / 2));
    }

    /// This process ends: it keeps, beside what it has spent, as much again as is set aside, for
    /// those of its calls that are tried again. Says whether it gave something back.
    pub fn give_back(&mut self, now: i64) -> bool {
        let Some(slice) = self.slice else {
            return false;
        };
        self.turn(self.window, now);
        let used = self.counted(now).saturating_add(self.held);
        let kept = slice.min(used.saturating_add(self.held));
        self.slice = Some(kept);
        kept < slice
    }

    /// This process is the newest again: what is nobody else's is its.
    pub fn take_rest(&mut self) {
        self.slice = None;
    }

    /// What an elder says of it.
    pub fn learn(&mut self, elder: i64, figures: &Figures) {
        self.theirs.retain(|said| said.process != elder);
        if let Some(slice) = figures.slice {
            self.theirs.push(Theirs {
                process: elder,
                slice,
                spent: figures.spent,
                start: figures.start,
            });
        }
    }

    /// Only these are there still.
    pub fn keep_elders(&mut self, elders: &[Elder]) {
        let is_there = |said: &Theirs| elders.iter().any(|elder| elder.process == said.process);
        self.theirs.retain(is_there);
    }

    /// Takes over the money of a process that is gone.
    pub fn absorb(&mut self, gone: i64, figures: &Figures) {
        self.theirs.retain(|said| said.process != gone);
        if self.span == Span::default() {
            self.span = figures.window.span(figures.start);
        }
        if figures.start > self.span.start {
            self.turn(self.window, figures.start);
        }
        let its = figures.window.span(figures.start);
        if its.end > self.span.start {
            self.spent = self.spent.saturating_add(figures.spent);
            self.previous = self.previous.saturating_add(figures.previous);
        } else if self.window.slides() && its.end > self.window.span(self.span.start - 1).start {
            self.previous = self.previous.saturating_add(figures.spent);
        }
    }

    /// What it looks like, and what of it is whose.
    pub fn look(&self, elders: &[Elder], now: i64) -> Look {
        let mut now_here = self.clone();
        now_here.turn(self.window, now);
        now_here.looked(elders, now)
    }

    fn looked(&self, elders: &[Elder], now: i64) -> Look {
        let own = self.counted(now);
        let cap = self.cap(elders);
        let elsewhere = self.limit.saturating_sub(cap);
        let this_window = self
            .theirs
            .iter()
            .filter(|said| said.start == self.span.start);
        let theirs = this_window
            .map(|said| said.spent)
            .fold(0, u64::saturating_add);
        Look {
            window: self.window,
            limit: self.limit,
            spent: own.saturating_add(theirs),
            held: self.held,
            elsewhere: elsewhere.saturating_sub(theirs),
            remaining: cap.saturating_sub(own.saturating_add(self.held)),
            end: self.span.end,
        }
    }

    /// In how many seconds so much may fit, 1 at least; `None` if it never will. Where only calls
    /// that run are in its way, or other processes, that is soon.
    pub fn fits_in(&self, asked: u64, now: i64) -> Option<u64> {
        if asked > self.limit {
            return None;
        }
        let fits = |counted: u64| counted.saturating_add(asked) <= self.limit;
        let wait = if fits(self.counted(now)) {
            1
        } else if !self.window.slides() {
            self.span.end - now
        } else {
            self.slides_in(asked, now)
        };
        Some(u64::try_from(wait).unwrap_or_default().max(1))
    }

    /// In how many seconds enough of what was spent is a window ago.
    fn slides_in(&self, asked: u64, now: i64) -> i64 {
        let room = self.limit - asked;
        let turn = (self.span.end - now).max(0);
        if self.spent <= room {
            return until(self.previous, room - self.spent, self.span.length())
                - (now - self.span.start);
        }
        turn + until(self.spent, room, self.span.length())
    }
}

/// What part of `whole` counts of a window before this one, rounded up.
fn share(whole: u64, span: Span, now: i64) -> u64 {
    let length = span.length().max(1);
    let left = (span.end - now).clamp(0, length);
    let part = u128::from(whole) * left.unsigned_abs() as u128;
    u64::try_from(part.div_ceil(length.unsigned_abs() as u128)).unwrap_or(u64::MAX)
}

/// How many seconds into a window no more than `room` of `whole`, spent in the one before, counts.
fn until(whole: u64, room: u64, length: i64) -> i64 {
    if whole <= room {
        return 0;
    }
    let left = u128::from(room) * length.unsigned_abs() as u128 / u128::from(whole);
    length - i64::try_from(left).unwrap_or(length)
}

/// So many parts of a limit, rounded down.
pub fn parts_of(limit: u64, parts: u32) -> u64 {
    let part = u128::from(limit) * u128::from(parts) / u128::from(WHOLE);
    u64::try_from(part).unwrap_or(u64::MAX)
}
