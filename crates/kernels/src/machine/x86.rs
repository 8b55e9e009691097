//! Peak loops for x86-64: enough independent sums to hide the latency of the multiply-add,
//! everything in registers.

use std::arch::asm;
use std::arch::x86_64::*;
use std::hint::black_box;

use super::{Kind, Reader};

/// Independent sums of a loop. A multiply-add takes four or five cycles, and two start per cycle,
/// so ten would suffice; AVX2's sixteen registers hold no more beside the operands.
const SUMS: usize = 12;

/// Reads with the widest loads of the processor.
pub(super) fn reader() -> Option<Reader> {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the processor has AVX-512 F.
        Some(|numbers| unsafe { read_avx512(numbers) })
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        Some(|numbers| unsafe { read_avx2(numbers) })
    } else {
        None
    }
}

pub(super) fn int8() -> Option<Kind> {
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        Some(Kind {
            instruction: "vpdpbusd zmm",
            // SAFETY: the processor has AVX-512 F and VNNI.
            run: |bodies| unsafe { int8_avx512_vnni(bodies) },
        })
    } else if is_x86_feature_detected!("avxvnni") {
        Some(Kind {
            instruction: "vpdpbusd ymm",
            // SAFETY: the processor has AVX-VNNI, and so AVX2.
            run: |bodies| unsafe { int8_avx_vnni(bodies) },
        })
    } else if is_x86_feature_detected!("avx2") {
        Some(Kind {
            instruction: "vpmaddubsw ymm",
            // SAFETY: the processor has AVX2.
            run: |bodies| unsafe { int8_avx2(bodies) },
        })
    } else {
        None
    }
}

pub(super) fn bf16() -> Option<Kind> {
    (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16")).then_some(Kind {
        instruction: "vdpbf16ps zmm",
        // SAFETY: the processor has AVX-512 F and BF16.
        run: |bodies| unsafe { bf16_avx512(bodies) },
    })
}

pub(super) fn f32() -> Option<Kind> {
    if is_x86_feature_detected!("avx512f") {
        Some(Kind {
            instruction: "vfmadd zmm",
            // SAFETY: the processor has AVX-512 F.
            run: |bodies| unsafe { f32_avx512(bodies) },
        })
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        Some(Kind {
            instruction: "vfmadd ymm",
            // SAFETY: the processor has AVX2 and FMA.
            run: |bodies| unsafe { f32_avx2(bodies) },
        })
    } else {
        None
    }
}

/// Operations of `rounds` loop bodies, each of which is one multiply-add of `lanes` products per
/// sum.
fn operations(bodies: usize, lanes: usize) -> f64 {
    (bodies * SUMS * lanes * 2) as f64
}

#[target_feature(enable = "avx512f")]
fn read_avx512(numbers: &[u64]) -> u64 {
    let mut sums = [_mm512_setzero_si512(); 4];
    let (lines, rest) = numbers.as_chunks::<32>();
    for line in lines {
        for (sum, part) in sums.iter_mut().zip(line.as_chunks::<8>().0) {
            // SAFETY: 64 bytes of the array; the load needs no alignment.
            *sum = _mm512_xor_si512(*sum, unsafe { _mm512_loadu_si512(part.as_ptr().cast()) });
        }
    }
    let [a, b, c, d] = sums;
    let all = _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d));
    rest.iter()
        .fold(_mm512_reduce_or_epi64(all).cast_unsigned(), |sum, number| {
            sum ^ number
        })
}

#[target_feature(enable = "avx2")]
fn read_avx2(numbers: &[u64]) -> u64 {
    let mut sums = [_mm256_setzero_si256(); 8];
    let (lines, rest) = numbers.as_chunks::<32>();
    for line in lines {
        for (sum, part) in sums.iter_mut().zip(line.as_chunks::<4>().0) {
            // SAFETY: 32 bytes of the array; the load needs no alignment.
            *sum = _mm256_xor_si256(*sum, unsafe { _mm256_loadu_si256(part.as_ptr().cast()) });
        }
    }
    let all = sums
        .into_iter()
        .fold(_mm256_setzero_si256(), |all, sum| _mm256_xor_si256(all, sum));
    let [a, b, c, d] = [
        _mm256_extract_epi64::<0>(all),
        _mm256_extract_epi64::<1>(all),
        _mm256_extract_epi64::<2>(all),
        _mm256_extract_epi64::<3>(all),
    ];
    rest.iter()
        .fold((a | b | c | d).cast_unsigned(), |sum, number| sum ^ number)
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn int8_avx512_vnni(bodies: usize) -> f64 {
    let (a, b) = black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(-5)));
    let mut sums = [_mm512_setzero_si512(); SUMS];
    for _ in 0..bodies {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, b);
        }
    }
    black_box(sums);
    operations(bodies, 64)
}

#[target_feature(enable = "avx2,avxvnni")]
fn int8_avx_vnni(bodies: usize) -> f64 {
    let (a, b) = black_box((_mm256_set1_epi8(3), _mm256_set1_epi8(-5)));
    let mut sums = [_mm256_setzero_si256(); SUMS];
    for _ in 0..bodies {
        for sum in &mut sums {
            *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
        }
    }
    black_box(sums);
    operations(bodies, 32)
}

/// Without VNNI a product of bytes takes three instructions: to 16 bits in pairs, to 32 bits in
/// pairs, the sum.
#[target_feature(enable = "avx2")]
fn int8_avx2(bodies: usize) -> f64 {
    let (mut a, b) = black_box((_mm256_set1_epi8(3), _mm256_set1_epi8(-5)));
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); SUMS];
    for _ in 0..bodies {
        for sum in &mut sums {
            // The products do not depend on the sum: without this the compiler takes them out of
            // the loop. SAFETY: no instruction; the register is said to have changed.
            unsafe { asm!("/* {0} */", inout(ymm_reg) a, options(pure, nomem, nostack, preserves_flags)) };
            let pairs = _mm256_maddubs_epi16(a, b);
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
        }
    }
    black_box(sums);
    operations(bodies, 32)
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_avx512(bodies: usize) -> f64 {
    let (a, b) = black_box((_mm512_set1_ps(1.5), _mm512_set1_ps(0.75)));
    // SAFETY: both are 64 bytes of plain numbers.
    let (a, b) = unsafe {
        (
            std::mem::transmute::<__m512, __m512bh>(a),
            std::mem::transmute::<__m512, __m512bh>(b),
        )
    };
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..bodies {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, a, b);
        }
    }
    black_box(sums);
    operations(bodies, 32)
}

#[target_feature(enable = "avx512f")]
fn f32_avx512(bodies: usize) -> f64 {
    let (a, b) = black_box((_mm512_set1_ps(1.5), _mm512_set1_ps(0.75)));
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..bodies {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(a, b, *sum);
        }
    }
    black_box(sums);
    operations(bodies, 16)
}

#[target_feature(enable = "avx2,fma")]
fn f32_avx2(bodies: usize) -> f64 {
    let (a, b) = black_box((_mm256_set1_ps(1.5), _mm256_set1_ps(0.75)));
    let mut sums = [_mm256_setzero_ps(); SUMS];
    for _ in 0..bodies {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(a, b, *sum);
        }
    }
    black_box(sums);
    operations(bodies, 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_read_everything() {
        let numbers: Vec<u64> = (0..100).map(|bit| 1 << (bit % 64)).collect();
        if let Some(read) = reader() {
            // A change of any number changes the result.
            for place in 0..numbers.len() {
                let mut changed = vec![0; numbers.len()];
                changed[place] = u64::MAX;
                assert_ne!(read(&changed), 0, "place {place}");
            }
        }
    }

    #[test]
    fn every_loop_that_this_processor_has_runs() {
        for kind in [int8(), bf16(), f32()].into_iter().flatten() {
            assert!((kind.run)(2) > 0.0, "{}", kind.instruction);
        }
    }
}
