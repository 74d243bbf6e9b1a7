"""Names of torch's functions, by what they do to values that vary."""


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


# of a tensor itself, whatever its values are
FACTS = words(
    "size dim ndimension numel nelement stride is_floating_point is_complex is_contiguous get_device element_size __len__ __repr__ __str__ "
    "__hash__ is_signed storage_offset has_names is_inference"
)
# values leave torch
ESCAPES = words(
    "item tolist numpy __array__ __bool__ __int__ __float__ __index__ __dlpack__ __contains__ __format__ __setitem__"
)
# values change place at most
MOVES = words(
    "view reshape permute transpose t unsqueeze squeeze flatten unflatten expand expand_as repeat contiguous clone detach to float half "
    "double bfloat16 type_as cpu cuda getitem chunk split split_with_sizes tensor_split unbind select narrow index_select roll rot90 "
    "flip cat concat concatenate stack hstack vstack dstack movedim moveaxis swapaxes swapdims pixel_shuffle pixel_unshuffle "
    "channel_shuffle dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout gather take_along_dim repeat_interleave view_as "
    "reshape_as broadcast_to unfold requires_grad diagonal tile"
)
# of those, the ones that leave each value in its place
SAME = words("dropout to float half double bfloat16 type_as contiguous clone detach cpu cuda")
# the mean of the result is the result of the mean
AFFINE = words(
    "add sub subtract rsub neg negative sum mean cumsum mul multiply div divide true_divide addcmul lerp avg_pool1d avg_pool2d avg_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d interpolate batch_norm pad masked_fill where fold index_add scatter_add"
)
# nothing of the values is looked at
FRESH = words(
    "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty new_tensor"
)
CONVOLUTIONS = words("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
MATMULS = words("matmul bmm mm mv addmm baddbmm einsum")
PRODUCTS = words("mul multiply")
FACTORS = {
    "addcmul": (1, ("tensor1", "tensor2"), 1),
    "lerp": (2, ("weight",), 0),
}  # from where, by name, how many may vary
# the last axis of the result is one of channels
TAKES_AXIS = words("layer_norm rms_norm")
