/* SPDX-License-Identifier: MIT
 *
 * Lines in the log of looks at directories that hang: one when a look has hung for as long as a
 * read has that is worth a line, one when it has ended. The engine looks at none; the publisher
 * tells which there are. */
#ifndef ENGINE_LOOK_REPORTS_H
#define ENGINE_LOOK_REPORTS_H

/* What takes longer is worth a line, a look as well as a read. */
#define REPORT_SECONDS 10
#define MOST_LOOKS_REPORTED 16U

struct unshard_engine;

/* What was told and has not ended. Zero-initialised: nothing. Of one thread. */
struct look_reports {
    struct reported_look {
        char *directory;
        double seconds; /* when it was seen last */
    } looks[MOST_LOOKS_REPORTED];
    unsigned count;
};

/* Tells what is new since the last time. No lock held; of the housekeeper's thread. */
void look_reports_update(struct unshard_engine *engine);
void look_reports_free(struct look_reports *reports);

#endif
