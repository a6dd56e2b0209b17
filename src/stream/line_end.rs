//! Searches for the end of a line, many bytes at a time.

/// Returns the position of the first CR or LF.
///
/// Each block is first searched for any byte up to CR, without a branch for each byte. This search
/// compiles to a few vector instructions, where `position` would compare byte by byte. Only a block
/// with such a byte, which may also be a tab, is searched for a line end.
#[inline]
pub(super) fn find_line_end(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    while let Some((block, after)) = rest.split_first_chunk::<BLOCK>() {
        let has_control = block.iter().fold(0, |has_control, &byte| {
            has_control | u8::from(byte <= b'\r')
        });
        if has_control != 0
            && let Some(position) = find_line_end_by_words(block)
        {
            return Some(bytes.len() - rest.len() + position);
        }
        rest = after;
    }
    find_line_end_by_words(rest).map(|position| bytes.len() - rest.len() + position)
}

/// Returns the position of the first CR or LF, and searches eight bytes at a time.
#[inline]
fn find_line_end_by_words(bytes: &[u8]) -> Option<usize> {
    const BITS_PER_BYTE: usize = u8::BITS as usize;
    let mut rest = bytes;
    while let Some((word, after)) = rest.split_first_chunk::<{ size_of::<u64>() }>() {
        let word = u64::from_le_bytes(*word);
        let marks = mark_equal_bytes(word, b'\n') | mark_equal_bytes(word, b'\r');
        if marks != 0 {
            let position = marks.trailing_zeros() as usize / BITS_PER_BYTE;
            return Some(bytes.len() - rest.len() + position);
        }
        rest = after;
    }
    let position = rest
        .iter()
        .position(|&byte| byte == b'\n' || byte == b'\r')?;
    Some(bytes.len() - rest.len() + position)
}

/// Returns the high bit of each byte of `word` that equals `byte`, with all other bits clear. The
/// borrow of the subtraction may also mark bytes above a match, so only the lowest mark counts.
#[inline]
fn mark_equal_bytes(word: u64, byte: u8) -> u64 {
    /// 1 in each byte.
    const ONES: u64 = 0x0101_0101_0101_0101;
    /// The high bit of each byte.
    const HIGH_BITS: u64 = ONES << 7;
    // 0 in each byte that equals `byte`: below, the subtraction sets the high bit of such a byte.
    let difference = word ^ (ONES * u64::from(byte));
    difference.wrapping_sub(ONES) & !difference & HIGH_BITS
}

/// The number of bytes searched at once without a branch.
const BLOCK: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_end_is_found_at_every_position() {
        for len in 0..100 {
            // A control character below CR that does not end a line.
            let mut bytes = vec![b'\x0B'; len];
            assert_eq!(find_line_end(&bytes), None);
            for at in (0..len).rev() {
                bytes[at] = if at % 2 == 0 { b'\n' } else { b'\r' };
                assert_eq!(find_line_end(&bytes), Some(at), "of {len}");
            }
        }
    }
}
