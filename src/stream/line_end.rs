//! Searches bytes for a line end, many at a time.

/// Returns the position of the first CR or LF.
///
/// Each block is first searched for any control character up to CR, without a branch for each byte:
/// that compiles to a few vector instructions, where `position` would compare byte by byte.
#[inline]
pub(super) fn line_end(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    while let Some((block, after)) = rest.split_first_chunk::<BLOCK>() {
        let any = block
            .iter()
            .fold(0, |any, &byte| any | u8::from(byte <= b'\r'));
        if any != 0
            && let Some(at) = line_end_in_few(block)
        {
            return Some(bytes.len() - rest.len() + at);
        }
        rest = after;
    }
    line_end_in_few(rest).map(|at| bytes.len() - rest.len() + at)
}

/// Returns the position of the first CR or LF, searching eight bytes at a time.
#[inline]
fn line_end_in_few(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    while let Some((word, after)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*word);
        let found = marks(word, b'\n') | marks(word, b'\r');
        if found != 0 {
            return Some(bytes.len() - rest.len() + found.trailing_zeros() as usize / 8);
        }
        rest = after;
    }
    let at = rest
        .iter()
        .position(|&byte| byte == b'\n' || byte == b'\r')?;
    Some(bytes.len() - rest.len() + at)
}

/// Sets the high bit of each byte of `word` that equals `byte`, and clears all other bits. Bytes above
/// a match may be marked by mistake, so that only the lowest mark counts.
#[inline]
fn marks(word: u64, byte: u8) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let zeros = word ^ (ONES * u64::from(byte));
    zeros.wrapping_sub(ONES) & !zeros & (ONES << 7)
}

/// The number of bytes searched at once.
const BLOCK: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_end_is_found_at_every_position() {
        for len in 0..100 {
            let mut bytes = vec![b'\x0B'; len];
            assert_eq!(line_end(&bytes), None);
            for at in (0..len).rev() {
                bytes[at] = if at % 2 == 0 { b'\n' } else { b'\r' };
                assert_eq!(line_end(&bytes), Some(at), "of {len}");
            }
        }
    }
}
