static void @name@(@arguments@, @out@ *y)
{
    int i;
    for (i = 0; i < @count@; i++)
        y[i] = (@out@)@value@;
}

