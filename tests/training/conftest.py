"""TensorFlow on one thread, as every training task has it: only then do results repeat to the bit."""

import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
