#ifdef POLICY_AVX2
/* total[16 * c + o] = sum of the pairs weight[k][o] * x[c][at[k]], for 16 outputs and @columns@ columns. */
static void policy_pairs_@columns@(const int16_t *weight, const int32_t *at, int pairs, const int16_t *const *x,
                            int32_t *total)
{
    POLICY_COLUMNS_@columns@(POLICY_SUMS)
    int k;
    for (k = 0; k < pairs; k++, weight += 32) {
        policy_sums v = *(const policy_32 *)weight, w = *(const policy_32 *)(weight + 16), seen, product;
        POLICY_COLUMNS_@columns@(POLICY_STEP)
    }
    POLICY_COLUMNS_@columns@(POLICY_STORE)
}
#endif

