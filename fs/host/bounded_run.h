/* SPDX-License-Identifier: MIT
 *
 * Doing what may hang in the kernel, for the sake of a mount that does not answer: another process
 * does it, and is left behind when it does not come back. */
#ifndef FS_HOST_BOUNDED_RUN_H
#define FS_HOST_BOUNDED_RUN_H

/* Runs work(context) in a child and waits, at most timeout_ms. What work returned, of which 8 bits
 * arrive, so from 0 to 255; or a negative errno: -ETIMEDOUT, it was killed, which it notices when
 * the kernel lets it go; -EIO, it was ended by a signal. What it prints is flushed
 * and handed on: the child has neither our standard output and errors, which whoever reads them
 * would wait for as long as it hangs, nor any other descriptor but standard input and `keep`
 * (negative: none). */
int bounded_run(int (*work)(void *context), void *context, int keep, int timeout_ms);

#endif
