/*
 * Views and acknowledged decisions of three replicas, for spin: does anything that was fed get lost?
 *
 * What is here is ftnids/sync/views.py and member.py without clocks, rings and merging: decisions, bytes, acknowledgements,
 * what is stable, PROPOSE, PROMISE, INSTALL, void packets, rejoining after being left out.  docs/protocol.md says it in words.
 *
 * Theory of operation.  A message is not an object here: what a replica has said in a view stays readable in that view
 * (`put`, `acked`, `sent`, `offered`, `installed`), also after it has died, and whoever is in that view reads it once, late, or never.
 * That is a network that loses, repeats, delays and reorders.  Every step only adds, so each run ends; where nothing is left to
 * do, the end is checked.  `init` is the judge of the end, asserts on the way are the judges of safety.
 *
 *   CRASHES  replicas that may die, at any moment       PACKETS  packets on the link, each captured by any of the replicas
 *   SLIPS    times a replica may suspect a live one     NUMBERS  view numbers; candidates that outbid each other further are cut
 *
 * Each fault below, given with -D, must be found: tests/test_model.py.
 *
 *   FEED_BEFORE_ACK       stable as soon as it is here        ACK_BEFORE_BYTES      acknowledged without the packet
 *   FORGET_LAST_DECISION  a new coordinator drops one
 *   TAKE_AFTER_PROMISE    decisions and bytes of the old view are taken after a promise
 *   NOBODY_THAWS          a promise whose candidate gave up binds for ever
 */
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef SLIPS
#define SLIPS 1
#endif
#ifndef PACKETS
#define PACKETS 2
#endif
#ifndef NUMBERS
#define NUMBERS 5
#endif

/* -- sets of replicas or packets, logs ------------------------------------------------------------------------ */
#define SET(x) (1 << (x))
#define HAS(set, x) (((set) >> (x)) & 1)
#define COUNT(set) (HAS(set, 0) + HAS(set, 1) + HAS(set, 2))
#define LOWEST(set) (HAS(set, 0) -> 0 : (HAS(set, 1) -> 1 : 2))
#define BELOW(x) (SET(x) - 1)
#define ALL 7

/* A log holds at most two packets, numbered from 1: two bits each, the first lowest. */
#define AT(log, seq) (((log) >> (2 * (seq))) & 3)
#define LENGTH(log) (((log) != 0) + ((log) > 3))
#define FRONT(log, n) ((log) & (SET(2 * (n)) - 1))
#define THEN(log, packet) ((log) | ((packet) << (2 * LENGTH(log))))
#define EVERY 6 /* packets 1 and 2 */
#define IN(log) ((SET(AT(log, 0)) | SET(AT(log, 1))) & EVERY)

/* -- views ------------------------------------------------------------------------------------------------------- */
/* A view's name is its number and its coordinator; they are ordered by number, then the lower coordinator. */
#define FIRST 0
#define NAME(number, candidate) (3 * (number) + (candidate))
#define NUMBER(v) ((v) / 3)
#define COORDINATOR(v) ((v) % 3)
#define OUTRANKS(v, w) (NUMBER(v) > NUMBER(w) || (NUMBER(v) == NUMBER(w) && (v) < (w)))
#define VIEWS (3 * NUMBERS)

typedef View {
    unsigned members : 3;   /* 0: nobody proposed it */
    unsigned parent : 4;    /* the candidate's view before */
    unsigned offered : 4;   /* PROPOSE: the candidate's log; INSTALL: the log that all have */
    unsigned installed : 1;
    unsigned voided : 3;    /* INSTALL: packets that nobody has */
    unsigned put : 4;       /* DECISION: the coordinator's log */
    unsigned sent : 3;      /* BYTES: packets that a member has sent */
    unsigned acked : 6      /* ACK: decisions of each member, 2 bits each */
};

typedef Replica {
    unsigned captured : 3;
    unsigned view : 4;
    unsigned members : 3;   /* of that view */
    unsigned promised : 4;  /* the newest view that it promised; frozen while that is not `view` */
    unsigned trying : 1;    /* it is the candidate for that view */
    unsigned log : 4;
    unsigned here : 3;      /* packets whose bytes it has */
    unsigned gone : 3;      /* void packets */
    unsigned stable : 2;    /* decisions that its IDS may have */
    unsigned since : 8;     /* for the judge: the view in which each of them became stable here, 4 bits each */
    unsigned promises : 6;  /* PROMISE, as a candidate: decisions of each member and one more, 2 bits each; 0: none */
    unsigned lacks : 9      /* and the packets that each of them lacks, 3 bits each */
};

View view[VIEWS];
Replica at[3];
byte up = ALL, crashes, slips;
hidden byte a, b, v, n, ok; /* for a moment within one step */

#define FROZEN(r) (at[r].promised != at[r].view)
#define PRESENT(r, seq) (AT(at[r].log, seq) != 0 && HAS(at[r].here | at[r].gone, AT(at[r].log, seq)))
#define REACHED(r) (PRESENT(r, 0) * (1 + PRESENT(r, 1)))
#define ACKED(v, r) AT(view[v].acked, r)
#define PUT2(word, r, value) (((word) & ~(3 << (2 * (r)))) | ((value) << (2 * (r))))
#define PUT3(word, r, value) (((word) & ~(7 << (3 * (r)))) | ((value) << (3 * (r))))
#define SINCE(r, seq) ((at[r].since >> (4 * (seq))) & 15)

#ifdef ACK_BEFORE_BYTES
#define SAYS(r) LENGTH(at[r].log)
#else
#define SAYS(r) REACHED(r)
#endif

/* -- the judge ------------------------------------------------------------------------------------------------------ */
inline descends(from, to) { /* ok: view `to` is `from` or comes after it; a partition makes branches that do not */
    ok = to;
    do
    :: ok != from && ok != FIRST -> ok = view[ok].parent
    :: else -> break
    od;
    ok = (ok == from)
}

inline same(r, q, seq) {
    assert(AT(at[r].log, seq) == AT(at[q].log, seq)); /* agreement: what was fed is neither lost nor renumbered */
    assert(HAS(at[r].gone, AT(at[r].log, seq)) == HAS(at[q].gone, AT(at[q].log, seq))) /* nor void afterwards */
}

inline judge_stable(r) { /* seq stable - 1 has become stable at r: all who are in this view, or in a later one, have it */
    a = 0;
    do
    :: a < 3 ->
        descends(at[r].view, at[a].view);
        if
        :: ok && a != r && HAS(up, a) && (at[a].view != at[r].view || LENGTH(at[a].log) >= at[r].stable) -> same(r, a, at[r].stable - 1)
        :: else
        fi;
        a++
    :: else -> break
    od;
    a = 0
}

inline judge_entry(r) { /* r is in a new view: it has all that was stable for anybody in a view before, dead or alive */
    a = 0;
    do
    :: a < 3 ->
        b = 0;
        do
        :: b < at[a].stable ->
            descends(SINCE(a, b), at[r].view);
            if
            :: ok && a != r && SINCE(a, b) != at[r].view -> same(r, a, b)
            :: else
            fi;
            b++
        :: else -> break
        od;
        a++
    :: else -> break
    od;
    a = 0
}

/* -- what a member does ----------------------------------------------------------------------------------------------- */
#ifdef FEED_BEFORE_ACK
#define ALL_ACKED(r) true
#else
#define MISSES(r, q) (HAS(at[r].members, q) && ACKED(at[r].view, q) <= at[r].stable)
#define ALL_ACKED(r) !(MISSES(r, 0) || MISSES(r, 1) || MISSES(r, 2))
#endif

/* r has said all that it has to say.  Acknowledgements are heard at once: to hear them later promises less. */
inline say(r) {
    if
    :: !FROZEN(r) ->
        view[at[r].view].acked = PUT2(view[at[r].view].acked, r, SAYS(r));
        view[at[r].view].sent = view[at[r].view].sent | (at[r].here & IN(at[r].log));
        if
        :: COORDINATOR(at[r].view) == r -> view[at[r].view].put = at[r].log
        :: else
        fi
    :: else
    fi;
    n = 0;
    do
    :: n < 3 ->
        do
        :: HAS(up, n) && !FROZEN(n) && SAYS(n) > at[n].stable && ALL_ACKED(n) ->
            at[n].since = at[n].since | (at[n].view << (4 * at[n].stable));
            at[n].stable = at[n].stable + 1;
            judge_stable(n)
        :: else -> break
        od;
        n++
    :: else -> break
    od;
    n = 0
}

inline adopt(r, other) { /* take what is beyond the own log */
    if
    :: LENGTH(other) > LENGTH(at[r].log) ->
        assert(FRONT(other, LENGTH(at[r].log)) == at[r].log); /* a number means one decision */
        at[r].log = other
    :: else
    fi
}

inline give_up(r) {
    at[r].trying = 0;
    at[r].promises = 0;
    at[r].lacks = 0
}

inline enter(r, to) {
    assert(FRONT(at[r].log, REACHED(r)) == FRONT(view[to].offered, REACHED(r))); /* what it acknowledged goes on */
    at[r].log = view[to].offered;
    at[r].gone = view[to].voided;
    assert((at[r].here & at[r].gone) == 0); /* void is what nobody has */
    at[r].view = to;
    at[r].members = view[to].members;
    at[r].promised = to;
    give_up(r);
    judge_entry(r);
    say(r);
    tidy()
}

#define READS(r, name) (HAS(up, r) && at[r].view == name)
#define AWAITS(r, name) (HAS(up, r) && HAS(view[name].members, r) && at[r].view != name && \
    (at[r].promised == name || OUTRANKS(name, at[r].promised)))
#define STEMS(r, name) (HAS(up, r) && (at[r].view == name || at[r].promised == name))

/* Everything that was stable for the dead r was so for another one, too. */
#define SHOWN(r, q) ((q) != (r) && at[q].stable >= at[r].stable && FRONT(at[q].log, at[r].stable) == at[r].log && \
    (SINCE(q, 0) == SINCE(r, 0) || at[r].stable == 0) && (SINCE(q, 1) == SINCE(r, 1) || at[r].stable < 2))

/* Forget what nobody can read any more: fewer states, the same runs. */
inline tidy() {
    n = 0;
    do
    :: n < 3 ->
        if
        :: !HAS(up, n) && at[n].view == FIRST && at[n].members == 0 && (SHOWN(n, 0) || SHOWN(n, 1) || SHOWN(n, 2)) ->
            at[n].log = 0;
            at[n].gone = 0;
            at[n].stable = 0;
            at[n].since = 0;
        :: else
        fi;
        n++
    :: else -> break
    od;
    n = 1;
    do
    :: n < VIEWS ->
        if
        :: !(READS(0, n) || READS(1, n) || READS(2, n)) ->
            view[n].put = 0;
            view[n].sent = 0;
            view[n].acked = 0
        :: else
        fi;
        if
        :: !(AWAITS(0, n) || AWAITS(1, n) || AWAITS(2, n)) ->
            view[n].members = 0;
            view[n].offered = 0;
            view[n].voided = 0;
            view[n].installed = 0
        :: else
        fi;
        n++
    :: else -> break
    od;
    n = 0
}

inline fall(r) { /* dead, or rejoining as a new process: nobody hears the old one any more */
    up = up & ~SET(r);
    give_up(r);
    if
    :: !FROZEN(r) || !HAS(up, COORDINATOR(at[r].promised)) || at[COORDINATOR(at[r].promised)].promised != at[r].promised ->
        at[r].log = FRONT(at[r].log, at[r].stable);
        at[r].here = 0;
        at[r].view = 0;
        at[r].promised = 0;
        at[r].members = 0
    :: else
    fi;
    tidy()
}

/* -- who is suspected ------------------------------------------------------------------------------------------------ */
/* b is in a view without a, or can no longer come to a's view. */
#define ELSEWHERE(a, b) (at[b].view != at[a].view && \
    (NUMBER(at[b].view) > NUMBER(at[a].view) -> !HAS(at[b].members, a) : at[b].promised != at[a].view))
#define ASTRAY(a, b) ((a) != (b) && HAS(up, b) && ELSEWHERE(a, b))
#define HEARD(a) (at[a].members & ~(ASTRAY(a, 0) | ASTRAY(a, 1) << 1 | ASTRAY(a, 2) << 2))
#define HEALTHY(a) (HEARD(a) & up)

/* a hears `set`: is it a's turn to lead, and is there a reason?  One that promised and waits in vain is a reason. */
#define LEADS(a, set) (COORDINATOR(at[a].view) == (a) || (!HAS(set, COORDINATOR(at[a].view)) && ((set) & BELOW(a)) == 0))
#define WAITS(a, set, q) (HAS(set, q) && at[q].view == at[a].view && \
    ((q) == (a) -> FROZEN(a) : NUMBER(at[q].promised) > NUMBER(at[a].promised)))
#ifdef NOBODY_THAWS
#define REASON(a, set) ((set) != at[a].members)
#else
#define REASON(a, set) ((set) != at[a].members || WAITS(a, set, 0) || WAITS(a, set, 1) || WAITS(a, set, 2))
#endif
#define OUTBID(a, q) (HAS(view[at[a].promised].members, q) && OUTRANKS(at[q].promised, at[a].promised))
#define REFRESH(a, set) (!at[a].trying || \
    (view[at[a].promised].members != (set) && ((set) & ~up & ~view[at[a].promised].members) == 0) || \
    OUTBID(a, 0) || OUTBID(a, 1) || OUTBID(a, 2))

#define MAX(x, y) ((x) > (y) -> (x) : (y))
#define SAID(set, q) (HAS(set, q) -> NUMBER(at[q].promised) : 0)
#define NEWER(a, set) (MAX(NUMBER(at[a].promised), MAX(SAID(set, 0), MAX(SAID(set, 1), SAID(set, 2)))) + 1)

/* Decisions go together along one branch only: the proposer's view is a's, or before it, or what a waits to enter. */
#define FOLLOWS(a, to) (view[to].parent == at[a].promised || (HAS(at[a].members, COORDINATOR(to)) && \
    (view[to].parent == at[a].view || NUMBER(view[to].parent) < NUMBER(at[a].view))))
/* Whom a must take for gone although it hears them: the leader, and who comes before the proposer. */
#define LEADER(a, to) COORDINATOR((view[to].parent == at[a].promised -> at[a].promised : at[a].view))
#define WRONGED(a, to) (COORDINATOR(to) == LEADER(a, to) -> 0 : \
    HEALTHY(a) & (SET(LEADER(a, to)) | BELOW(COORDINATOR(to))) & ~SET(a))
#define ACCEPTS(a, to) (HAS(view[to].members, a) && COORDINATOR(to) != (a) && OUTRANKS(to, at[a].promised) && \
    FOLLOWS(a, to) && COUNT(WRONGED(a, to)) <= slips)

#define AGREED(a, q) (!HAS(view[at[a].promised].members, q) || (q) == (a) || AT(at[a].promises, q) == LENGTH(at[a].log) + 1)
#define LACKED(a, q) (!HAS(view[at[a].promised].members, q) || (q) == (a) -> EVERY : (at[a].lacks >> (3 * (q))) & 7)

/* b's view is why a must rejoin. */
#define STRONGER(s, t) (COUNT(s) > COUNT(t) || (COUNT(s) == COUNT(t) && LOWEST(s) < LOWEST(t)))
#define MINE(a) (at[a].trying -> at[a].view : at[a].promised)
#define GONE_ON(b, a) (OUTRANKS(at[b].view, MINE(a)) && COUNT(at[b].members) >= COUNT(HEALTHY(a)))
#define OVERTAKES(b, a) (HAS(up, b) && at[b].view != at[a].view && !HAS(at[b].members, a) && \
    (HAS(at[a].members, b) -> GONE_ON(b, a) : STRONGER(at[b].members, at[a].members)))

/* -- the steps ----------------------------------------------------------------------------------------------------------- */
#define CAUGHT(a, q, p) (HAS(at[a].members, q) && HAS(at[q].captured, p))
#define DECIDE(p) \
    :: d_step { HAS(up, me) && !FROZEN(me) && COORDINATOR(at[me].view) == me && !HAS(IN(at[me].log), p) && \
            (CAUGHT(me, 0, p) || CAUGHT(me, 1, p) || CAUGHT(me, 2, p)) -> \
        printf("%d decides packet %d\n", me, p); \
        at[me].log = THEN(at[me].log, p); \
        say(me) }

#define LEARN \
    :: d_step { HAS(up, me) && TAKES(me) && COORDINATOR(at[me].view) != me && \
            LENGTH(view[at[me].view].put) > LENGTH(at[me].log) -> \
        printf("%d has a decision\n", me); \
        assert(FRONT(view[at[me].view].put, LENGTH(at[me].log)) == at[me].log); \
        at[me].log = FRONT(view[at[me].view].put, LENGTH(at[me].log) + 1); \
        say(me) }

#define RECEIVE(p) \
    :: d_step { HAS(up, me) && TAKES(me) && HAS(IN(at[me].log) & ~(at[me].here | at[me].gone), p) && \
            HAS(view[at[me].view].sent, p) -> \
        printf("%d has packet %d\n", me, p); \
        at[me].here = at[me].here | SET(p); \
        say(me) }

#define BEGIN(set) \
    :: d_step { HAS(up, me) && HAS(set, me) && ((set) & ~HEARD(me)) == 0 && COUNT(HEALTHY(me) & ~(set)) <= slips && \
            LEADS(me, set) && REASON(me, set) && REFRESH(me, set) && NEWER(me, set) < NUMBERS -> \
        slips = slips - COUNT(HEALTHY(me) & ~(set)); \
        v = NAME(NEWER(me, set), me); \
        printf("%d proposes view %d.%d of set %d\n", me, NUMBER(v), me, set); \
        give_up(me); \
        at[me].promised = v; \
        at[me].trying = 1; \
        view[v].members = set; \
        view[v].parent = at[me].view; \
        view[v].offered = at[me].log; \
        tidy() }

#define PROMISE(to) \
    :: d_step { HAS(up, me) && ACCEPTS(me, to) -> \
        printf("%d promises view %d.%d\n", me, NUMBER(to), COORDINATOR(to)); \
        slips = slips - COUNT(WRONGED(me, to)); \
        give_up(me); \
        at[me].promised = to; \
        tidy() }

#define COLLECT(q) \
    :: d_step { HAS(up, me) && at[me].trying && q != me && HAS(view[at[me].promised].members, q) && \
            at[q].promised == at[me].promised && AT(at[me].promises, q) != LENGTH(at[q].log) + 1 -> \
        printf("%d hears the promise of %d\n", me, q); \
        adopt(me, at[q].log); \
        view[at[me].promised].offered = at[me].log; \
        at[me].promises = PUT2(at[me].promises, q, LENGTH(at[q].log) + 1); \
        at[me].lacks = PUT3(at[me].lacks, q, IN(at[q].log) & ~at[q].here) }

#ifdef TAKE_AFTER_PROMISE
#define TAKES(r) true
#else
#define TAKES(r) !FROZEN(r)
#endif

#define CATCH_UP \
    :: d_step { HAS(up, me) && FROZEN(me) && !at[me].trying && LENGTH(view[at[me].promised].offered) > LENGTH(at[me].log) -> \
        printf("%d catches up with its candidate\n", me); \
        adopt(me, view[at[me].promised].offered) }

#define INSTALL \
    :: d_step { HAS(up, me) && at[me].trying && AGREED(me, 0) && AGREED(me, 1) && AGREED(me, 2) -> \
        v = at[me].promised; \
        CUT_SHORT(me); \
        view[v].offered = at[me].log; \
        view[v].voided = IN(at[me].log) & ~at[me].here & LACKED(me, 0) & LACKED(me, 1) & LACKED(me, 2); \
        view[v].installed = 1; \
        printf("%d installs view %d.%d, void %d\n", me, NUMBER(v), me, view[v].voided); \
        enter(me, v) }

#define ENTER \
    :: d_step { HAS(up, me) && FROZEN(me) && !at[me].trying && view[at[me].promised].installed -> \
        v = at[me].promised; \
        printf("%d enters view %d.%d\n", me, NUMBER(v), COORDINATOR(v)); \
        assert(SAME_LENGTH(me)); \
        enter(me, v) }

#define REJOIN \
    :: d_step { HAS(up, me) && (OVERTAKES(0, me) || OVERTAKES(1, me) || OVERTAKES(2, me)) -> \
        printf("%d was left behind\n", me); \
        fall(me) }

#define CRASH \
    :: d_step { HAS(up, me) && crashes > 0 && COUNT(up) > 1 -> \
        printf("%d dies\n", me); \
        crashes--; \
        fall(me) }

#ifdef FORGET_LAST_DECISION
#define CUT_SHORT(r) at[r].log = FRONT(at[r].log, LENGTH(at[r].log) - (LENGTH(at[r].log) > 0))
#define SAME_LENGTH(r) true
#else
#define CUT_SHORT(r) skip
#define SAME_LENGTH(r) LENGTH(at[r].log) == LENGTH(view[at[r].promised].offered)
#endif

#define PROPOSED(number) PROMISE(NAME(number, 0)) PROMISE(NAME(number, 1)) PROMISE(NAME(number, 2))

proctype replica(byte me) {
end:
    do
    DECIDE(1) DECIDE(2) LEARN RECEIVE(1) RECEIVE(2)
    BEGIN(1) BEGIN(2) BEGIN(3) BEGIN(4) BEGIN(5) BEGIN(6) BEGIN(7)
    PROPOSED(1) PROPOSED(2) PROPOSED(3)
#if NUMBERS > 4
    PROPOSED(4)
#endif
#if NUMBERS > 5
    PROPOSED(5)
#endif
#if NUMBERS > 6
    PROPOSED(6) PROPOSED(7)
#endif
    COLLECT(0) COLLECT(1) COLLECT(2) CATCH_UP INSTALL ENTER REJOIN CRASH
    od
}

/* Everything captured by a replica that lived through it is decided and stable, and not void. */
#define DONE(r) (!HAS(up, r) || (!FROZEN(r) && at[r].stable == LENGTH(at[r].log) && \
    (at[r].captured & ~(IN(at[r].log) & ~at[r].gone)) == 0))
#define TOGETHER(r, q) (!HAS(up, r) || !HAS(up, q) || at[r].view == at[q].view)
#define BOUND(r) (HAS(up, r) && NUMBER(at[r].promised) >= NUMBERS - 1)

init {
    byte first = 1, second;
    atomic {
        do /* how many faults there will be: the end is judged when they are over */
        :: crashes < CRASHES -> crashes++
        :: break
        od;
        do
        :: slips < SLIPS -> slips++
        :: break
        od;
        do
        :: first < ALL -> first++
        :: break
        od;
        second = first;
        do
        :: PACKETS > 1 && second < ALL -> second++
        :: break
        od;
        a = 0;
        do
        :: a < 3 ->
            at[a].captured = HAS(first, a) << 1 | (HAS(second, a) << 2) * (PACKETS > 1);
            at[a].here = at[a].captured;
            at[a].members = ALL;
            a++
        :: else -> break
        od;
        view[FIRST].members = ALL;
        view[FIRST].installed = 1;
        first = 0; second = 0;
        run replica(0);
        run replica(1);
        run replica(2)
    }
end:
    d_step {
        timeout ->
        assert(up != 0);
        if
        :: BOUND(0) || BOUND(1) || BOUND(2) -> skip
        :: else ->
            assert(DONE(0) && DONE(1) && DONE(2));
            assert(TOGETHER(0, 1) && TOGETHER(0, 2) && TOGETHER(1, 2))
        fi;
        skip
    }
}
