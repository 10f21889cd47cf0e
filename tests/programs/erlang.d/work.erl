-module(work).
-compile([nowarn_deprecated_function, export_all, nowarn_export_all]).

p(What, Value) -> io:format("~p ~p~n", [What, Value]).
digest(Term) -> erlang:phash2(Term, 1 bsl 32).

%% A message goes round a ring of processes.
ring() ->
    N = 2000,
    First = lists:foldl(fun(_, Next) -> spawn(fun() -> forward(Next) end) end, self(), lists:seq(1, N)),
    [First ! {token, I} || I <- lists:seq(1, 20)],
    Got = [receive {token, X} -> X end || _ <- lists:seq(1, 20)],
    First ! stop,
    receive stop -> ok end,
    p(ring, Got).
forward(Next) ->
    receive
        stop -> Next ! stop;
        {token, X} -> Next ! {token, X + 1}, forward(Next)
    end.

spawns() ->
    Me = self(),
    Pids = [spawn_monitor(fun() -> Me ! {self(), fib(I rem 16)} end) || I <- lists:seq(1, 5000)],
    Sum = lists:sum([receive {Pid, V} -> V end || {Pid, _} <- Pids]),
    Downs = [receive {'DOWN', Ref, process, _, R} -> R end || {_, Ref} <- Pids],
    p(spawns, {Sum, length(Downs), lists:usort(Downs)}).
fib(N) when N < 2 -> N;
fib(N) -> fib(N - 1) + fib(N - 2).

tables() ->
    Set = ets:new(a, [set, public, {write_concurrency, true}]),
    Ord = ets:new(b, [ordered_set, public]),
    Me = self(),
    Ws = [spawn(fun() ->
        [begin ets:insert(Set, {K * 7919 rem 10007, W, K}), ets:insert(Ord, {{K rem 100, W, K}, K * K}),
               ets:update_counter(Set, count, 1, {count, 0}) end || K <- lists:seq(1, 2000)],
        Me ! done end) || W <- lists:seq(1, 5)],
    [receive done -> ok end || _ <- Ws],
    p(sizes, {ets:info(Set, size), ets:info(Ord, size), ets:lookup(Set, count)}),
    p(order, digest(ets:tab2list(Ord))),
    p(select, length(ets:select(Ord, [{{{'$1', '$2', '_'}, '$3'}, [{'<', '$1', 10}, {'=:=', {'rem', '$3', 4}, 1}], ['$2']}]))),
    p(next, lists:foldl(fun(_, K) -> ets:next(Ord, K) end, ets:first(Ord), lists:seq(1, 3333))).

binaries() ->
    B = << <<(I * I rem 251):8, I:13, (I / 3):64/float>> || I <- lists:seq(1, 3000)>>,
    p(size, bit_size(B)),
    p(hash, erlang:crc32(pad(B))),
    p(parsed, parse(B, 0, 0, 0.0)),
    p(little, << <<X:24/little, Y:40/big-signed>> || X <- lists:seq(1, 9), Y <- [-X, X * 1000] >>),
    U = unicode:characters_to_binary(lists:duplicate(300, [16#e9, 16#4e2d, 16#1f600, $a])),
    p(utf, {byte_size(U), utf(U, 0), erlang:md5(U)}),
    p(split, length(binary:split(U, <<"a">>, [global]))),
    p(matches, length(binary:matches(pad(B), [<<1, 2>>, <<0, 0, 0>>, <<250>>]))),
    p(text, base64:encode(binary:part(pad(B), 100, 60))).
pad(B) -> S = (8 - bit_size(B) rem 8) rem 8, <<B/bitstring, 0:S>>.
parse(<<A:8, I:13, F:64/float, Rest/bitstring>>, X, Y, Z) -> parse(Rest, X + A, Y bxor I, Z + F);
parse(<<>>, X, Y, Z) -> {X, Y, Z}.
utf(<<C/utf8, R/binary>>, N) -> utf(R, (N * 31 + C) rem 1000003);
utf(<<>>, N) -> N.

numbers() ->
    F = lists:foldl(fun(A, B) -> A * B end, 1, lists:seq(1, 1500)),
    p(factorial, {digest(F), length(integer_to_list(F))}),
    p(division, digest([{F div (1 bsl K), F rem (K * K + 1)} || K <- lists:seq(1, 300)])),
    p(bits, digest([((1 bsl K) - 1) band (F bsr K) bxor (F bsl (K rem 17)) || K <- lists:seq(1, 400)])),
    E = (1 bsl 59) - 1,
    p(edges, [E, E + 1, -E - 1, -E - 2, E * 2, E * E, (E + 1) * -1, -E - 1 - 1, E * 33 div 7, (-E * 3) rem 11]),
    p(power, pow(3, 5000, (1 bsl 521) - 1)),
    p(gcd, lists:foldl(fun gcd/2, 1 bsl 200, [6 * 7919 * 104729, 2 bsl 90, 42])),
    p(random, begin rand:seed(exsss, {1, 2, 3}), [rand:uniform(1 bsl 70) || _ <- lists:seq(1, 5)] end).
pow(_, 0, _) -> 1;
pow(B, N, M) when N band 1 =:= 1 -> B * pow(B, N - 1, M) rem M;
pow(B, N, M) -> X = pow(B, N div 2, M), X * X rem M.
gcd(A, 0) -> A;
gcd(A, B) -> gcd(B, A rem B).

lists() ->
    L = [(I * 7919) rem 100003 || I <- lists:seq(1, 20000)],
    p(sort, digest(lists:sort(L))),
    p(usort, length(lists:usort([X rem 1000 || X <- L]))),
    p(keysort, digest(lists:keysort(2, [{X, X rem 97} || X <- L]))),
    p(fold, lists:foldr(fun(X, A) -> (A * 3 + X) rem 1000003 end, 7, L)),
    p(zip, digest(lists:zipwith(fun(A, B) -> A - B end, L, lists:reverse(L)))),
    p(perms, length(perms([1, 2, 3, 4, 5, 6, 7]))),
    p(queens, length(queens(7))),
    p(deep, digest(lists:flatten(deep(12)))).
perms([]) -> [[]];
perms(L) -> [[H | T] || H <- L, T <- perms(L -- [H])].
queens(N) -> queens(N, N).
queens(0, _) -> [[]];
queens(K, N) -> [[Q | Qs] || Qs <- queens(K - 1, N), Q <- lists:seq(1, N), safe(Q, Qs, 1)].
safe(_, [], _) -> true;
safe(Q, [H | T], D) -> Q =/= H andalso abs(Q - H) =/= D andalso safe(Q, T, D + 1).
deep(0) -> leaf;
deep(N) -> [N, deep(N - 1), [deep(N - 1)]].

exceptions() ->
    Tries = [fun() -> 1 / zero() end, fun() -> hd([]) end, fun() -> throw(ball) end, fun() -> exit(bye) end,
             fun() -> {a} = {b, zero()} end, fun() -> element(9, {1}) end, fun() -> atom_to_list(3) end,
             fun() -> list_to_integer("12x") end, fun() -> (fun(1) -> 1 end)(2) end, fun() -> lists:nosuch() end,
             fun() -> case zero() of 1 -> 2 end end, fun() -> binary:part(<<1>>, 3, 4) end,
             fun() -> 1 bsl (1 bsl 70) end, fun() -> maps:get(k, #{}) end],
    [p(error, try F(), none catch C:R -> {C, R} after put(after_, get(after_)) end) || F <- Tries],
    p(nested, try try error(a) after error(b) end catch _:X -> X end),
    p(many, lists:sum([try hd(lists:nthtail(I rem 3, [1, 2])) catch error:badarg -> 100 end || I <- lists:seq(1, 30000)])).
zero() -> list_to_integer("0").

supervise() ->
    process_flag(trap_exit, true),
    R = [begin P = spawn_link(fun() -> worker(I) end), receive {'EXIT', P, Why} -> reason(Why) end end || I <- lists:seq(1, 600)],
    p(exits, [{K, length([x || X <- R, X =:= K])} || K <- lists:usort(R)]),
    P = spawn_link(fun() -> link(spawn(fun() -> exit(deep) end)), receive never -> ok end end),
    p(linked, receive {'EXIT', P, Y} -> Y end).
reason({X, S}) when is_list(S) -> X;
reason(X) -> X.
worker(I) when I rem 5 =:= 0 -> exit(five);
worker(I) when I rem 7 =:= 0 -> exit(self(), kill), receive never -> ok end;
worker(_) -> ok.

%% Code that is compiled and replaced while processes run it.
reload() ->
    R = [begin
        Src = io_lib:format("-module(worked). -export([f/1]). f(X) -> X * ~p + case X of ~p -> 1000; _ -> ~p end.", [I, I, I * I]),
        Forms = forms(lists:flatten(Src)),
        {ok, worked, Bin} = compile:forms(Forms, []),
        code:purge(worked),
        {module, worked} = code:load_binary(worked, "worked", Bin),
        lists:sum([worked:f(X) || X <- lists:seq(1, 50)])
    end || I <- lists:seq(1, 60)],
    p(reload, R).
forms(S) ->
    {ok, Ts, _} = erl_scan:string(S),
    [begin {ok, F} = erl_parse:parse_form(T), F end || T <- sentences(Ts, [])].
sentences([], []) -> [];
sentences([{dot, _} = D | T], Acc) -> [lists:reverse([D | Acc]) | sentences(T, [])];
sentences([H | T], Acc) -> sentences(T, [H | Acc]).

timers() ->
    Me = self(),
    [erlang:send_after(I rem 10 * 20, Me, {late, I rem 10}) || I <- lists:seq(1, 300)],
    L = [receive {late, K} -> K end || _ <- lists:seq(1, 300)],
    p(timers, {length(L), lists:sum(L)}),
    p(after_, receive nothing -> no after 30 -> yes end).

maps() ->
    M = lists:foldl(fun(I, A) -> A#{{I rem 777, I} => I, I => {x, I}} end, #{}, lists:seq(1, 5000)),
    p(size, maps:size(M)),
    p(sum, maps:fold(fun(_, V, A) when is_integer(V) -> A + V; (_, _, A) -> A end, 0, M)),
    p(sorted, digest(lists:sort(maps:to_list(M)))),
    N = maps:without(lists:seq(1, 4000), M),
    p(less, {maps:size(N), maps:get(4500, N), maps:is_key(17, N)}),
    p(merged, maps:size(maps:merge(N, #{a => 1, 4500 => 2}))).

terms() ->
    T = [{a, "text", <<"bin">>, 1.5, -7, 1 bsl 100, #{k => [v]}, fun lists:map/2} | lists:seq(1, 500)],
    B = term_to_binary(T, [compressed]),
    p(roundtrip, {binary_to_term(B) =:= T, digest(T), byte_size(term_to_binary(T))}),
    p(format, io_lib:format("~w ~.3f ~8.16.0B ~20s|~-10s|", [{x, y}, 3.14159, 48879, "right", "left"])),
    p(order, lists:sort([1, 1.0, a, {}, [], <<>>, "s", {1}, #{}, [1], -3, 2.5, b])).

floats() ->
    p(sums, [lists:sum([F(X / 17) || X <- lists:seq(1, 900)]) || F <- [fun math:sin/1, fun math:exp/1, fun math:sqrt/1]]),
    p(some, [math:F(0.7) || F <- [sin, cos, tan, asin, atan, exp, log, sqrt, sinh, tanh, erf, erfc]]),
    p(trunc, [trunc(X * 1.0e15 / 7) || X <- lists:seq(-5, 5)]),
    p(round, [round(X / 4) || X <- lists:seq(-9, 9)]),
    p(text, [float_to_list(X / 3, [short]) || X <- lists:seq(1, 20)]).

garbage() ->
    L = lists:foldl(fun(I, Acc) -> T = lists:seq(1, I rem 300), [{I, lists:sum(T), list_to_binary([X rem 256 || X <- T])} | lists:sublist(Acc, 50)] end, [], lists:seq(1, 8000)),
    p(garbage, digest(L)),
    Big = [binary:copy(<<I>>, 100000) || I <- lists:seq(1, 50)],
    erlang:garbage_collect(),
    p(big, erlang:crc32(Big)).

regexps() ->
    S = lists:flatten([io_lib:format("key~p=value~p; ", [I, I * I]) || I <- lists:seq(1, 500)]),
    {match, L} = re:run(S, "key(\\d+)=(value\\d*5);", [global, {capture, all, list}]),
    p(matches, {length(L), digest(L)}),
    p(replace, erlang:md5(re:replace(S, "(\\w+)=(\\w+)", "\\2=\\1", [global]))),
    p(split, length(re:split(S, "[;=] ?"))).

hashes() ->
    D = binary:copy(<<"abcdefghij">>, 3000),
    [p(H, crypto:hash(H, D)) || H <- [md5, sha, sha256, sha512, sha3_256, blake2b]],
    K = <<1:128>>,
    [p(C, erlang:crc32(crypto:crypto_one_time(C, K, <<2:128>>, D, true))) || C <- [aes_128_cbc, aes_128_ctr]],
    p(gcm, element(2, crypto:crypto_one_time_aead(aes_128_gcm, K, <<3:96>>, D, <<"aad">>, true))).

ports() ->
    p(cmd, os:cmd("echo from a shell; seq 1 2000 | md5sum")),
    Port = open_port({spawn, "cat"}, [binary, stream]),
    D = binary:copy(<<"0123456789">>, 5000),
    port_command(Port, D),
    p(echo, collect(Port, byte_size(D), <<>>) =:= D).
collect(_, N, Acc) when byte_size(Acc) >= N -> Acc;
collect(Port, N, Acc) -> receive {Port, {data, B}} -> collect(Port, N, <<Acc/binary, B/binary>>) end.

parallel() ->
    Me = self(),
    A = atomics:new(4, []),
    Ws = [spawn(fun() -> [begin atomics:add(A, 1 + I rem 4, I), (I rem 50 =:= 0) andalso erlang:yield() end || I <- lists:seq(1, 3000)], Me ! {done, fib(17)} end) || _ <- lists:seq(1, 40)],
    R = [receive {done, X} -> X end || _ <- Ws],
    p(parallel, {lists:usort(R), [atomics:get(A, K) || K <- [1, 2, 3, 4]]}).
