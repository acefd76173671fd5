//! Decisions out of fuzzer bytes. An input that has ended gives zeros.

pub(crate) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    pub(crate) fn bool(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    /// Below `limit`, which is 1 to 256.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::from(self.u8()) % limit
    }

    /// Up to `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        head
    }

    /// Bytes behind their length in one byte.
    pub(crate) fn field(&mut self) -> &'a [u8] {
        let count = self.u8();
        self.take(count.into())
    }
}

/// A stream cut at places of the fuzzer's choice: the first four bytes are the lengths of the
/// pieces, less one, used over and over; the rest is the stream.
pub(crate) fn pieces(data: &[u8]) -> (&[u8], impl Iterator<Item = &[u8]>) {
    let mut input = Input::new(data);
    let lengths = [(); 4].map(|()| usize::from(input.u8()) + 1);
    let stream = input.rest();
    let mut rest = stream;
    let mut lengths = lengths.into_iter().cycle();
    let pieces = std::iter::from_fn(move || {
        let length = lengths.next()?.min(rest.len());
        let (piece, next) = rest.split_at(length);
        rest = next;
        (!piece.is_empty()).then_some(piece)
    });
    (stream, pieces)
}
