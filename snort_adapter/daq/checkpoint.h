/* checkpoint.h: a copy of this process that sleeps until it is needed, or not. */
#ifndef FTN_CHECKPOINT_H
#define FTN_CHECKPOINT_H

#include "stream.h"

/* Whether the replica that made the ring is no more. */
bool stream_owner_is_gone(const struct stream *s);
/*
 * Fork.  True in this process, and later in the child when it is told to go on in this one's place; false where there can
 * be no fork.
 */
bool checkpoint_take(struct stream *s);
/* All that was handed out since is right: end the child. */
void checkpoint_discard(struct stream *s);

#endif
