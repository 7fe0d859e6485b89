/* SPDX-License-Identifier: MIT
 *
 * Memory that outlives the process: what the one that takes its place has to know.
 *
 * A keep is an anonymous file (memfd). Whoever works with it has it mapped; whoever may have to
 * hand it on holds the descriptor. It is a head, an area of a fixed size whose use is somebody
 * else's (the journal of requests), and records.
 *
 * The process may be gone at any instruction, and the next one finds what had been written until
 * then. So:
 * - A record is there as a whole or not at all: it is filled while nobody finds it, and committed
 *   with one store.
 * - Of a committed one only words of at most 8 bytes change, one by one; each such store leaves it
 *   valid. Whoever needs two of them to agree says in his own struct which one comes first.
 * - The size of a record never changes, nor where it lies. So who walks through all of them
 *   (keep_each, and the next process) depends on nothing that could be half written: a record's
 *   head is written before `end` is moved behind it.
 * - What one part makes of its records is checked by the same part in the next process, as a file
 *   is that somebody else has written: a process that ran wild may have written anything. What does
 *   not make sense is dropped.
 *
 * Free records are used again for what has the same size class; nothing is split or joined, since
 * few sizes come again and again (nodes, files of one model). Large ones give their memory back.
 *
 * The functions are declared and described in unshard.h. One mutex, a leaf, not held while anything
 * is called. */
#ifndef KEEP_KEEP_H
#define KEEP_KEEP_H

#include "unshard.h"

/* Of everything that is in a keep: whoever changes what a record holds changes this. The next
 * process takes over nothing of another one. */
#ifndef KEEP_LAYOUT /* a test builds the version that comes next */
#define KEEP_LAYOUT 1U
#endif

#endif
