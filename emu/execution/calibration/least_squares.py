"""Least squares with coefficients that are not negative: times are sums of costs."""

import numpy as np


def non_negative_least_squares(matrix: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The x >= 0 that minimizes |matrix @ x - target|; matrix (rows, columns), target (rows,), x (columns,).

    The active-set method of Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23. Columns are scaled to length
    1, so that figures of any magnitude may stand beside each other; a column of zeros gets the coefficient 0.
    """
    lengths = np.linalg.norm(matrix, axis=0)
    scaled = matrix / np.where(lengths > 0, lengths, 1.0)
    num_columns = matrix.shape[1]
    x, passive = np.zeros(num_columns), np.zeros(num_columns, dtype=bool)
    tolerance = 1e-10 * np.linalg.norm(target)
    for _ in range(10 * num_columns):
        gradient = np.where(passive, -np.inf, scaled.T @ (target - scaled @ x))
        if (entering := int(np.argmax(gradient))) < 0 or gradient[entering] <= tolerance:
            break
        passive[entering] = True
        while True:
            solution = np.zeros(num_columns)
            solution[passive] = np.linalg.lstsq(scaled[:, passive], target, rcond=None)[0]
            negative = passive & (solution <= 0)
            if not negative.any():
                break
            # As far towards the solution as nothing becomes negative; what reaches 0 there leaves.
            step = np.min(x[negative] / np.maximum(x[negative] - solution[negative], 1e-300))
            x = x + step * (solution - x)
            passive &= x > 1e-14 * np.max(np.abs(x), initial=1e-300)
        x = solution
    return x / np.where(lengths > 0, lengths, 1.0)
