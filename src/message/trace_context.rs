//! W3C trace context, level 1 (<https://www.w3.org/TR/trace-context/>): what `traceparent` says. `tracestate` goes on to
//! the app as any other header.

use std::fmt;

/// A span, as those name it that continue its trace. Never all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: [u8; 16],
    pub span: [u8; 8],
}

/// Bytes of a `traceparent` of version 00.
const LENGTH: usize = 55;

impl TraceContext {
    /// Those of a valid `traceparent`. Whether its sender records the trace is its own affair, so the flags are not kept.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_at_checked(LENGTH)?;
        let [version, trace, span, flags] = fields(known)?;
        let mut context = Self { trace: [0; 16], span: [0; 8] };
        hex::decode_to_slice(trace, &mut context.trace).ok()?;
        hex::decode_to_slice(span, &mut context.span).ok()?;
        let lower = known.iter().all(|byte| !byte.is_ascii_uppercase());
        let version_holds = match version {
            b"00" => more.is_empty(),
            b"ff" => false,
            // A later one may have more fields behind these.
            _ => version.iter().all(u8::is_ascii_hexdigit) && matches!(more.first(), None | Some(b'-')),
        };
        let holds = lower
            && version_holds
            && flags.iter().all(u8::is_ascii_hexdigit)
            && context.trace != [0; 16]
            && context.span != [0; 8];
        holds.then_some(context)
    }
}

fn fields(known: &[u8]) -> Option<[&[u8]; 4]> {
    let mut parts = known.split(|byte| *byte == b'-');
    let found = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let lengths = found.map(<[u8]>::len);
    (parts.next().is_none() && lengths == [2, 32, 16, 2]).then_some(found)
}

/// As `traceparent`: of a span that is recorded.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-01")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    #[test]
    fn a_valid_one_is_read_and_written_as_recorded() {
        let context = TraceContext::parse(GOOD.as_bytes()).unwrap();
        assert_eq!((context.trace[0], context.span[7]), (0x4b, 0xb7));
        assert_eq!(context.to_string(), GOOD.replace("b7-00", "b7-01"));
        let later = GOOD.replacen("00", "cc", 1) + "-what-comes";
        assert_eq!(TraceContext::parse(later.as_bytes()), Some(context));
    }

    #[test]
    fn what_the_recommendation_calls_invalid_is_as_if_there_were_none() {
        let wrong = [
            "".to_owned(),
            GOOD[..54].to_owned(),
            GOOD.to_owned() + "-x",
            GOOD.replacen("00", "ff", 1),
            GOOD.replacen("00", "cc", 1) + "x",
            GOOD.replace("4bf9", "4BF9"),
            GOOD.replace("4bf9", "4bg9"),
            GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            GOOD.replace('-', "_"),
            GOOD.replace("b7-00", "b-000"),
        ];
        for text in wrong {
            assert_eq!(TraceContext::parse(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic_and_what_is_written_is_read(
            bytes in prop::collection::vec(any::<u8>(), 0..80), trace: [u8; 16], span: [u8; 8],
        ) {
            let _ = TraceContext::parse(&bytes);
            prop_assume!(trace != [0; 16] && span != [0; 8]);
            let context = TraceContext { trace, span };
            prop_assert_eq!(TraceContext::parse(context.to_string().as_bytes()), Some(context));
        }
    }
}
