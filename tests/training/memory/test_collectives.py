"""What programs send, counted by hand in lines as XLA writes them."""

from tfxformer.training.memory.collectives import collectives

PROGRAM = """
HloModule jit_train_step
  %all-reduce.1 = bf16[8,1024,4096]{2,1,0:T(8,128)(2,1)} all-reduce(%fusion.814), channel_id=16, to_apply=%add.2.clone
  %all-reduce.2 = (f32[128]{0:T(256)}, f32[16,8]{1,0}, f32[2]{0}, /*index=3*/pred[4]{0}) all-reduce(%a, %b, %c, %d)
  %get-tuple-element.3 = f32[128]{0} get-tuple-element(%all-reduce.2), index=0
  %all-gather-start.4 = (bf16[4,8]{1,0}, bf16[16,8]{1,0}) all-gather-start(%p), dimensions={0}
  %all-gather-done.5 = bf16[16,8]{1,0} all-gather-done(%all-gather-start.4)
  %collective-permute-start.6 = (f32[64]{0}, f32[64]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%x), \
source_target_pairs={{0,1},{1,0}}, metadata={op_name="jit(train_step)/concatenate"}
  %all-to-all.7 = f8e4m3fn[8,512]{1,0} all-to-all(%y), dimensions={0}
  %fusion.8 = f32[8]{0} fusion(%all-reduce.1), kind=kLoop, calls=%computation
"""


def test_kinds_counts_and_bytes():
    assert collectives(PROGRAM, 8) == {
        "all-gather": {"count": 1, "bytes": 2 * 16 * 8},
        "all-reduce": {"count": 2, "bytes": 2 * 8 * 1024 * 4096 + 4 * (128 + 16 * 8 + 2) + 4},
        "all-to-all": {"count": 1, "bytes": 8 * 512},
        "collective-permute": {"count": 1, "bytes": 4 * 64 * 2 // 8},  # two of eight chips take part
    }


def test_a_program_that_sends_nothing():
    assert collectives("  %add.1 = f32[8]{0} add(%a, %b)", 1) == {}
