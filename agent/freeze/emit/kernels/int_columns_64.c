    int row;
    for (row = 0; row < 2; row++, weight += stride, total++) {
        total[0] = policy_far_@bits@(weight, x, stride);
        total[16] = policy_far_@bits@(weight, second, stride);
        total[32] = policy_far_@bits@(weight, third, stride);
        total[48] = policy_far_@bits@(weight, fourth, stride);
    }
