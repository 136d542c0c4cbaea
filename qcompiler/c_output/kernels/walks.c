/* Walks over six dimensions with element strides. */

/* Element offset of the index-th run along the innermost of `rank + 1` dimensions. */
static ptrdiff_t place(const ptrdiff_t *sizes, const ptrdiff_t *strides, int rank, ptrdiff_t index)
{
    ptrdiff_t offset = 0;
    for (int axis = rank - 1; axis >= 0; axis--) {
        offset += index % sizes[axis] * strides[axis];
        index /= sizes[axis];
    }
    return offset;
}

/* How many runs a walk over six dimensions has. */
static ptrdiff_t outer_runs(const ptrdiff_t *sizes)
{
    return sizes[0] * sizes[1] * sizes[2] * sizes[3] * sizes[4];
}
