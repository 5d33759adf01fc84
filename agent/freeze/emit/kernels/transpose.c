/* [rows][columns] -> [columns][rows]. */
static void policy_transpose_@type@(const @type@ *x, int rows, int columns, @type@ *y)
{
    int row, column;
    for (row = 0; row < rows; row++)
        for (column = 0; column < columns; column++)
            y[column * rows + row] = *x++;
}
