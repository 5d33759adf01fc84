        a = policy_far_@bits@(weight, x, stride);
        b = policy_far_@bits@(second, x, stride);
        c = policy_far_@bits@(third, x, stride);
        d = policy_far_@bits@(fourth, x, stride);
