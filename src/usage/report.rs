//! The numbers of an answer as they are reported, each with whether it is a part of another or
//! stands apart from it, and how they are brought to one meaning.

use super::Usage;

/// The numbers of one answer, or of one event of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    pub input: Option<u64>,
    pub output: Option<u64>,
    pub total: Option<u64>,
    /// Parts of `input`.
    pub cached: Option<u64>,
    pub written: Option<u64>,
    pub input_audio: Option<u64>,
    pub input_image: Option<u64>,
    /// Part of what was cached, and of the audio.
    pub cached_audio: Option<u64>,
    /// Part of what was written, wherever that counts.
    pub written_1h: Option<u64>,
    /// Part of `output`, except where the total says otherwise.
    pub reasoning: Option<u64>,
    /// Parts of `output`.
    pub output_audio: Option<u64>,
    pub output_image: Option<u64>,
    /// Read besides `input`.
    pub cached_apart: Option<u64>,
    pub written_apart: Option<u64>,
    pub tools_apart: Option<u64>,
    /// Written besides `output`.
    pub reasoning_apart: Option<u64>,
    /// No tokens.
    pub searches: Option<u64>,
}

impl Report {
    /// Takes over what a later event says. Its counts include those of earlier events, but
    /// what it leaves out or puts at zero was said before.
    pub fn merge(&mut self, later: &Self) {
        for (mine, new) in [
            (&mut self.input, later.input),
            (&mut self.output, later.output),
            (&mut self.total, later.total),
            (&mut self.cached, later.cached),
            (&mut self.written, later.written),
            (&mut self.input_audio, later.input_audio),
            (&mut self.input_image, later.input_image),
            (&mut self.cached_audio, later.cached_audio),
            (&mut self.written_1h, later.written_1h),
            (&mut self.reasoning, later.reasoning),
            (&mut self.output_audio, later.output_audio),
            (&mut self.output_image, later.output_image),
            (&mut self.cached_apart, later.cached_apart),
            (&mut self.written_apart, later.written_apart),
            (&mut self.tools_apart, later.tools_apart),
            (&mut self.reasoning_apart, later.reasoning_apart),
            (&mut self.searches, later.searches),
        ] {
            *mine = new.filter(|count| *count > 0).or(*mine).or(new);
        }
    }

    /// In one meaning for all; `None` if nothing was said.
    pub fn usage(&self) -> Option<Usage> {
        if [self.input, self.output, self.total] == [None; 3] {
            return None;
        }
        let count = |count: Option<u64>| count.unwrap_or(0);
        let apart = [self.cached_apart, self.written_apart, self.tools_apart];
        let input = apart
            .into_iter()
            .map(count)
            .fold(self.input(), u64::saturating_add);
        let output = count(self.output)
            .saturating_add(count(self.reasoning_apart))
            .saturating_add(self.reasoning_left_out());
        Some(Usage {
            input,
            output,
            cached_input: count(self.cached.or(self.cached_apart)),
            cache_write: count(self.written.or(self.written_apart)),
            cache_write_1h: count(self.written_1h),
            reasoning: count(self.reasoning.or(self.reasoning_apart)),
            input_audio: count(self.input_audio),
            output_audio: count(self.output_audio),
            cached_audio: count(self.cached_audio),
            input_image: count(self.input_image),
            output_image: count(self.output_image),
            web_searches: count(self.searches),
        })
    }

    /// Voyage reports the total alone; its answers have no output.
    fn input(&self) -> u64 {
        let rest = || {
            self.total
                .unwrap_or(0)
                .saturating_sub(self.output.unwrap_or(0))
        };
        self.input.unwrap_or_else(rest)
    }

    /// xAI reports in OpenAI's words but leaves the thoughts out of the output. Its total
    /// tells.
    fn reasoning_left_out(&self) -> u64 {
        let (Some(input), Some(output), Some(total), Some(reasoning)) =
            (self.input, self.output, self.total, self.reasoning)
        else {
            return 0;
        };
        let sum = [output, reasoning]
            .into_iter()
            .fold(input, u64::saturating_add);
        if sum == total { reasoning } else { 0 }
    }
}
