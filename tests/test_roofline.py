"""Kernels by group, and the bytes and operations that a step cannot do without."""

import pytest

from modeling_dualrep import DualRepAudioModel, DualRepConfig, DualRepImageModel, DualRepVideoModel
from modeling_dualrep.configuration_dualrep import (
    DualRepAudioConfig,
    DualRepImageConfig,
    DualRepVideoConfig,
)
from train import roofline
from train.roofline import Rates, Work, kernel_group, step_work

# Stem: 45 kernels of 7 x 7 over 3 colours, at 14 x 64 x 64 places.
STEM_MACS = 14 * 64 * 64 * 45 * 3 * 49


@pytest.mark.parametrize(
    ("kernel", "group"),
    [
        (
            "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64",
            "convolution",
        ),
        ("sm90_xmma_dgrad_implicit_gemm_indexed_bf16bf16_bf16f32_f32", "convolution"),
        ("void cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816wgrad_optimized_bf16>", "convolution"),
        ("void implicit_convolve_sgemm<float, float, 128, 5, 5, 3>", "convolution"),
        ("triton_tem_fused_convolution_3", "convolution"),
        ("void cudnn::ops::nchwToNhwcKernel<__nv_bfloat16, __nv_bfloat16, float>", "copies"),
        ("void cudnn::ops::convertTensor_kernel<float, float>", "copies"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("Memset (Device)", "copies"),
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::bfloat16_copy_kernel_cuda>",
            "copies",
        ),
        ("triton_poi_fused__to_copy_5", "copies"),
        ("triton_poi_fused__to_copy_convolution_12", "copies"),
        ("triton_poi_fused_clone_view_3", "copies"),
        ("triton_red_fused__native_batch_norm_legit_functional_0", "normalisation"),
        ("triton_poi_fused__native_batch_norm_legit_functional_add_relu_14", "normalisation"),
        ("triton_red_fused_convolution_backward_native_batch_norm_backward_2", "normalisation"),
        ("void at::native::batch_norm_backward_elemt_channels_last_kernel<4>", "normalisation"),
        ("void cudnn::bn_fw_tr_1C11_kernel_NCHW<float, float, 512, true, 1>", "normalisation"),
        ("triton_poi_fused_avg_pool2d_relu_3", "pointwise and pooling"),
        ("void at::native::reduce_kernel<512, 1, at::native::MeanOps<float>>", "pointwise and pooling"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::threshold>", "pointwise and pooling"),
        ("nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT", "matrix product"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_s1688gemm_128x64_16x6_tn_align4>", "matrix product"),
        ("triton_tem_fused_mm_2", "matrix product"),
        ("void at::native::multi_tensor_apply_kernel<TensorListMetadata, FusedAdamMathFunctor>", "optimizer"),
        ("void at::native::multi_tensor_apply_kernel<TensorListMetadata<1>, LpNormFunctor>", "optimizer"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "other"),
    ],
)
def test_a_kernel_belongs_to_the_group_that_its_name_tells(kernel: str, group: str) -> None:
    assert kernel_group(kernel) == group


def test_every_pattern_decides_about_some_kernel() -> None:
    """None is shadowed by those before it: each group has a pattern, and OTHER is what is left."""
    groups = {group for _, group in roofline.KERNEL_NAMES}
    assert groups == {
        roofline.CONVOLUTION,
        roofline.NORMALISATION,
        roofline.POINTWISE,
        roofline.MATRIX_PRODUCT,
        roofline.OPTIMIZER,
        roofline.COPY,
    }


def test_the_video_tower_multiplies_as_often_as_is_known_of_it() -> None:
    """47.4 GMAC a clip forward; twice that backward, where only the gradient of the clip itself is not taken.

    R(2+1)D-18 is given as 40.5 GMAC for 16 x 112 x 112 (Tran et al., 2018), which is that times 1.17.
    """
    work = step_work([(DualRepVideoModel(DualRepVideoConfig()), (2, 14, 3, 128, 128))])
    forward_macs = (work["convolution"].flops / 2 / 2 + STEM_MACS) / 3
    assert forward_macs == pytest.approx(47.4e9, rel=1e-3)
    assert work["matrix product"].flops == 0


def test_work_grows_with_the_batch_but_for_the_weights() -> None:
    tower = DualRepImageModel(DualRepImageConfig())
    one, two, three = (step_work([(tower, (batch, 3, 64, 64))]) for batch in (1, 2, 3))
    for group in ("convolution", "normalisation", "pointwise and pooling"):
        assert three[group].bytes - two[group].bytes == two[group].bytes - one[group].bytes > 0
    assert three["convolution"].flops == 3 * one["convolution"].flops
    for group in ("optimizer", "copies"):
        assert three[group] == one[group]
    weights = sum(weight.numel() for weight in tower.parameters())
    assert (one["optimizer"].bytes, one["copies"].bytes) == (32 * weights, 12 * weights)


def test_bytes_of_a_small_tower_are_those_counted_by_hand() -> None:
    """Speech over time: two convolutions and two normalisations a block, one block, and the input's."""
    config = DualRepAudioConfig(num_mel_bins=8, hidden_sizes=[4])
    work = step_work([(DualRepAudioModel(config), (2, 16, 8))])
    time = 2 * 16
    first = 2 * (time * 8 + time * 4 + 8 * 4 * 3)  # not the gradient of what has none...
    first += time * 8 + time * 4 + 8 * 4 * 3  # ...but the input's BatchNorm is trained
    second = 3 * (time * 4 + time * 4 + 4 * 4 * 3)
    assert work["convolution"].bytes == 2 * (first + second)
    assert work["normalisation"].bytes == 2 * 8 * (time * 8 + 2 * time * 4)
    assert work["pointwise and pooling"].bytes == 2 * 2 * (time * 4 + time * 4)
    assert work["matrix product"].flops == 3 * 2 * 2 * 4 * 4


def test_the_towers_work_adds_up_and_they_stay_as_they_were() -> None:
    config = DualRepConfig(image_config={"freeze": True, "depths": [1], "hidden_sizes": [8]})
    tower = DualRepImageModel(config.image_config)
    alone = step_work([(tower, (2, 3, 32, 32))])
    both = step_work([(tower, (2, 3, 32, 32))] * 2)
    assert both == {group: work + work for group, work in alone.items()}
    assert tower.config.freeze and not any(weight.requires_grad for weight in tower.parameters())
    assert all(weight.device.type == "cpu" for weight in tower.parameters())


@pytest.mark.parametrize(
    ("work", "seconds"), [(Work(10.0, 1.0), 5.0), (Work(1.0, 100.0), 25.0), (Work(), 0.0)]
)
def test_the_floor_is_set_by_what_takes_longer(work: Work, seconds: float) -> None:
    assert Rates(bytes_per_second=2.0, flops_per_second=4.0).floor_seconds(work) == seconds
