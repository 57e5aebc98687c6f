"""The plots: what happens, why, and what follows from it. See stories.py for the notation."""

PLOTS = {
    "lost": {
        "title": ("The Lost $x", "Where Is the $x?", "The Missing $x"),
        "lesson": ("a friend is worth more than any treasure", "looking together is easier than "
                   "looking alone", "it is good to ask for help"),
        "facts": {"What was lost?": "The $x was lost.", "Who helped $H?": "$F helped $H.",
                  "Where was the $x?": "It was under an old tree."},
        "beats": (
            ("$H had $acolor $x that $s loved very much.", "$p [favorite|dearest] thing was "
             "$acolor $x.", "$p grandmother had given $o $acolor $x."),
            ("One day the $x was gone.", "But one [morning|evening] $s could not find the $x.",
             "When $s [woke up|came home], the $x was not in its place."),
            ("$H looked [in the $room|under the bed|behind the door], but it was not there.",
             "$S looked everywhere and [found nothing|began to cry].",
             "\"Where is my $x?\" cried $H. \"I had it yesterday!\""),
            ("Then $fintro came by. \"Why are you so sad?\" asked $F.",
             "$fintro heard $o and asked, \"What is wrong?\"",
             "Soon $s met $fintro. \"Can I help you?\" $t asked."),
            ("\"I lost my $x,\" said $H, \"and I do not know where to look.\"",
             "\"My $x is gone,\" $H said in a [small|sad|low] voice."),
            ("\"Where did you go yesterday?\" asked $F. \"To the $place,\" $H answered. \"Then we "
             "will look there,\" said $F.",
             "\"Do not worry,\" said $F. \"We will look for it together.\""),
            ("They walked to the $place and looked [behind every stone|in the tall grass|along "
             "the path].", "So they went back to the $place, step by step."),
            ("At last $F saw something $color under an old tree. It was the $x!",
             "Under an old tree $F found it. \"Look!\" $t called. \"Here is your $x!\""),
            ("$H was so happy that $s [jumped|danced|laughed] with joy.",
             "$H held the $x [tight|close] and thanked $F."),
        )},
    "hungry": {
        "title": ("A Piece of $food", "The Hungry $animal", "Sharing the $food"),
        "lesson": ("sharing makes everyone happy", "a kind act comes back to you",
                   "even a small gift can be a great help"),
        "facts": {"What did $H share?": "$H shared the $food.", "Who was hungry?":
                  "$F was hungry."},
        "beats": (
            ("$S had [a basket of|some|a little bag of] $food for the day.",
             "$p mother had packed some $food for the way."),
            ("On the [road|path] $s met $fintro who looked [weak|tired|very thin].",
             "Near the $place sat $fintro with sad eyes."),
            ("\"I have not eaten [for two days|since yesterday],\" said $F.",
             "\"Please, I am so hungry,\" $F said."),
            ("$H looked at the $food. There was not much, and $s was hungry too.",
             "?$H thought for a moment, because it was all $s had."),
            ("But $H could not walk away, so $s gave half of the $food to $F.",
             "\"Take some of my $food,\" said $H. \"It is enough for two.\"",
             "Then $s smiled and shared the $food with $F."),
            ("$F ate [slowly|quickly] and felt strong again.", "$F ate every bit and smiled."),
            ("Later, [a storm came|it began to rain|it grew dark] and $H lost the way home.",
             "In the evening $H fell into a deep hole and could not get out."),
            ("$F heard $p call and came at once.", "\"Help!\" cried $H, and $F came running."),
            ("\"You helped me, and now I will help you,\" said $F, and led $o home.",
             "With [a long rope|$ax] $F brought $o safely home."),
        )},
    "storm": {
        "title": ("The Great Storm", "The Night of the Storm", "Safe from the Storm"),
        "lesson": ("it is wise to prepare before the storm", "being careful is not the same as "
                   "being afraid", "a warm house is best when it is shared"),
        "facts": {"What was coming?": "A storm was coming.", "Who came to the door?":
                  "$F came to the door."},
        "beats": (
            ("One day dark clouds came over the $place.", "In the afternoon the wind began to "
             "blow hard.", "The sky turned [grey|black] and the birds stopped singing."),
            ("\"A storm is coming,\" said $H, so $s [closed the windows|brought in the wood|tied "
             "down the roof].", "Because $s was $trait, $H made everything ready in time."),
            ("$F did not [listen|care]. \"It is only a little rain,\" $t said, and went on "
             "playing.", "Only $fintro laughed. \"I am not afraid of rain,\" said $F."),
            ("Then the rain came down like a river.", "Soon there was [loud thunder|bright "
             "lightning] and the trees [shook|bent]."),
            ("There was a knock at the door. It was $F, cold and wet.",
             "In the middle of the night $F came to the door. \"My roof is gone,\" $t cried."),
            ("$H opened the door at once. \"Come in and sit by the fire,\" $s said.",
             "\"Come in quickly,\" said $H, and gave $u a blanket and some hot $food."),
            ("?They listened to the wind and told each other stories.",
             "All night the wind howled, but inside it was warm."),
            ("In the morning the storm was over, and together they [mended|repaired] the roof.",
             "The next day the sun came out, and $H helped $F to build a new house."),
            ("\"Next time I will listen,\" said $F.", "\"You were right,\" said $F. \"I was "
             "foolish.\""),
        )},
    "garden": {
        "title": ("The Garden of $H", "A Seed in the Ground", "The Little $plant"),
        "lesson": ("good things take time", "those who wait and work are rewarded",
                   "patience makes things grow"),
        "facts": {"What did $H plant?": "$H planted a seed.", "What grew?": "A $plant grew."},
        "beats": (
            ("One spring day $s found a [tiny|small] seed.", "$F gave $o a [tiny|brown] seed.",
             "An old $job gave $o a small seed."),
            ("$H dug a hole with a spoon and put the seed into the ground.",
             "$S planted it beside the house, where the sun was warm."),
            ("Every day $s gave it water.", "Each morning $s brought water from the well."),
            ("But day after day nothing happened.", "A week went by, and there was only dry "
             "earth."),
            ("\"It is dead,\" said $F. \"You should give up.\"", "$F laughed and said, \"Nothing "
             "will ever grow there.\""),
            ("$H was sad, but $s did not give up.", "But $H only said, \"I will wait a little "
             "longer.\""),
            ("Then, after a night of rain, a green leaf came out of the ground.",
             "One morning $s saw a small green leaf."),
            ("The plant grew and grew until it was a beautiful $color $plant.",
             "By summer a tall $plant with $color flowers stood there."),
            ("Everyone from the $place came to see it, and $F was [surprised|sorry that $t had "
             "laughed].", "\"I was wrong,\" said $F. \"Will you teach me how to do it?\" And $H "
             "did."),
        )},
    "broken": {
        "title": ("The Broken $x", "The Truth about the $x", "An Honest Word"),
        "lesson": ("telling the truth is better than hiding a mistake", "everyone makes mistakes, "
                   "but not everyone says so", "an honest word keeps a friend"),
        "facts": {"What was broken?": "The $x of $F was broken.", "Who broke the $x?":
                  "$H broke it."},
        "beats": (
            ("$F had a beautiful $color $x.", "$p friend was $fintro, and $F had a fine $x."),
            ("One day $H [picked it up|played with it] while $F was [asleep|away|at the market].",
             "$H wanted to see the $x, so $s took it from the shelf without asking."),
            ("It slipped out of $p hands and broke.", "But $s was not careful, and the $x fell "
             "to the ground and broke."),
            ("$H was [afraid|ashamed]. $S hid the pieces [under the bed|in the $room|behind the "
             "barn].", "\"Nobody saw me,\" thought $H, and hid the pieces."),
            ("When $F came back, $t looked for the $x everywhere. \"Have you seen my $x?\" $t "
             "asked.", "That evening $F asked, \"Do you know where my $x is?\""),
            ("\"No,\" said $H, but $p face was red.", "$H said nothing and looked at the floor."),
            ("That night $s could not sleep, because $s had not told the truth.",
             "All night $s thought about it and felt worse and worse."),
            ("In the morning $H went to $F and said, \"I broke your $x. I am very sorry.\"",
             "At last $H told $F everything and said, \"I am sorry. It was my fault.\""),
            ("$F was sad about the $x, but glad that $H had told the truth.",
             "\"Thank you for telling me,\" said $F. \"I am not angry any more.\""),
            ("Together they [mended the $x|made a new $x].", "$H worked for [three|five] days "
             "and bought $F a new $x."),
        )},
    "race": {
        "title": ("The Race", "The Race to the $place", "Fast and Slow"),
        "lesson": ("slow and steady can win", "winning is not everything", "pride makes people "
                   "careless"),
        "facts": {"Who won the race?": "$H won the race.", "Where did the race end?":
                  "It ended at the $place."},
        "beats": (
            ("$F was the fastest of all and liked to [say so|talk about it].",
             "There was also $fintro, who was very fast and very proud."),
            ("\"Nobody can beat me,\" $t said. \"You are so slow, $H.\"",
             "\"I am faster than the wind,\" said $F to $H."),
            ("\"Let us run a race to the $place,\" said $H quietly.",
             "\"Then let us race tomorrow,\" said $H, \"from the well to the $place.\""),
            ("Everyone came to watch. The $job gave the sign, and they ran.",
             "On the next day all the animals stood along the road, and the race began."),
            ("$F was soon far ahead. \"I have time for a rest,\" $t thought, and [lay down under "
             "a tree|stopped to eat some $food].",
             "$F ran so fast that nobody could see $u any more, so $t sat down and fell asleep."),
            ("But $H did not stop. Step by step $s went on.", "$H kept going, past the trees and "
             "past the sleeping $F."),
            ("When $F looked up, $H was almost there.", "$F woke up and ran as fast as $t could, "
             "but it was too late."),
            ("$H won the race, and everyone [cheered|clapped].", "$H reached the $place first, "
             "and the crowd cheered."),
            ("\"I should not have laughed at you,\" said $F.", "$F came to $H and said, \"You "
             "ran a good race.\""),
        )},
    "fear": {
        "title": ("$H and the Dark", "The Noise in the Night", "A Brave Night"),
        "lesson": ("being brave means going on while you are afraid", "many fears are smaller in "
                   "the light", "things are not always what they seem"),
        "facts": {"What was $H afraid of?": "$H was afraid of the dark.", "Who made the noise?":
                  "$F made the noise."},
        "beats": (
            ("$H was afraid of the dark.", "There was one thing that $H feared: the dark."),
            ("One night $s heard a strange noise [in the $room|outside the window|behind the "
             "door].", "In the middle of the night something went [tap, tap, tap|bump] in the "
             "$room."),
            ("$S pulled the blanket over $p head and did not move.", "\"Who is there?\" $s "
             "whispered, but nobody answered."),
            ("The noise came again, and it sounded like someone crying.",
             "Then $s heard it again, closer this time."),
            ("\"Maybe somebody needs help,\" thought $H.", "$p heart beat fast, but $s wanted to "
             "know what it was."),
            ("So $s took a [candle|lantern] and went slowly down the stairs.",
             "$S lit a candle and opened the door with a shaking hand."),
            ("There sat $fintro, [cold and alone|wet from the rain|with a hurt foot].",
             "It was not a monster at all. It was only $fintro, who was lost."),
            ("\"I was afraid of the dark,\" said $F. \"So was I,\" said $H, and both of them "
             "laughed.", "\"Please let me stay until morning,\" said $F. \"Of course,\" said $H."),
            ("They sat by the light and [drank warm milk|told stories] until the sun came up.",
             "After that, the dark did not seem so bad."),
        )},
    "make": {
        "title": ("The New $x", "How $H Made a $x", "The Work of $H"),
        "lesson": ("practice makes things better", "a mistake is a teacher", "what we make with "
                   "love has the most value"),
        "facts": {"What did $H make?": "$H made $ax.", "Who was the gift for?": "It was for $F."},
        "beats": (
            ("The birthday of $F was near, and $H wanted to give $u something special.",
             "$H wanted to make a gift for $F, who was $p best friend."),
            ("\"I have no money,\" thought $H, \"but I have two hands. I will make $ax.\"",
             "So $s decided to make $ax [from wood|from old things in the $room]."),
            ("The first $x was [crooked|too small], and the second one broke.",
             "It was hard work, and the first $x fell apart."),
            ("$H was [angry|sad] and wanted to stop.", "?\"I will never learn this,\" $s said."),
            ("But an old $job saw $o and said, \"Try again, and work slowly.\"",
             "Then $s asked the $job, who showed $o how to do it."),
            ("So $H tried again, and this time $s took great care.", "For [three|four|five] days "
             "$s worked, a little every evening."),
            ("At last the $x was ready. It was $color and [shining|beautiful].",
             "In the end $s had a fine $color $x."),
            ("When $F saw the $x, $t could not believe it. \"Did you make this yourself?\"",
             "On the birthday $F opened the box and [smiled|laughed with joy]."),
            ("\"It is the best gift of all, because you made it,\" said $F.",
             "$F kept the $x for many years."),
        )},
    "found": {
        "title": ("The $x in the Grass", "Whose $x Is It?", "The Found $x"),
        "lesson": ("what we find is not always ours", "honesty is a treasure", "giving back can "
                   "feel better than keeping"),
        "facts": {"What did $H find?": "$H found $ax.", "Who owned the $x?": "It belonged to "
                  "$F."},
        "beats": (
            ("While $s was walking, $H saw something in the grass. It was $acolor $x.",
             "On the way $s found $acolor $x on the ground."),
            ("\"How beautiful!\" said $H. \"Now it is mine.\"", "$H picked it up. Nobody else was "
             "there."),
            ("But then $s thought, \"Somebody must have lost it.\"", "$S wanted to keep it, but "
             "$s also felt that this was not right."),
            ("So $H asked the $job, \"Is this your $x?\" \"No,\" said the $job. \"Mine is "
             "bigger.\"", "First $s went to the $job and asked. \"It is not mine,\" the $job "
             "said."),
            ("?Then $s asked the $animal, but the $animal only shook its head.",
             "?Next $s asked the $animal. \"I have never seen it,\" it said."),
            ("Near the $place sat $fintro, [crying|looking very sad].", "At last $s came to the "
             "house of $fintro."),
            ("\"I have lost the $x of my father,\" said $F.", "\"My $x is gone, and I loved it "
             "so much,\" said $F."),
            ("\"Is this it?\" asked $H, and held it out.", "$H smiled and put the $x into $v "
             "hand."),
            ("$F [could not speak for joy|laughed and cried at the same time].", "\"Yes!\" cried "
             "$F. \"You are an honest friend.\""),
            ("To thank $o, $F gave $o some $food.", "?$F asked $o to stay for dinner, and there "
             "was $food and cake."),
        )},
    "party": {
        "title": ("The Surprise", "A Party for $F", "The Secret Plan"),
        "lesson": ("a secret can be a gift", "it feels good to make others happy", "friends do "
                   "not forget each other"),
        "facts": {"Who was the party for?": "The party was for $F.", "What was the gift?":
                  "The gift was $ax."},
        "beats": (
            ("It was almost the birthday of $F, a good friend who lived next door.",
             "$F was a good friend of $H, and soon it would be "
             "the birthday of $F."),
            ("\"Let us make a surprise,\" $H said to the $animal.", "$H made a secret plan with "
             "the $job."),
            ("They baked a cake with $food and hid it in the $room.", "They made a cake and hung "
             "$color paper in the $room."),
            ("$H also bought $ax and put it into a box.", "As a gift $s had $acolor $x."),
            ("But $F saw them whisper and thought, \"They do not like me any more.\"",
             "All day nobody talked to $F, and $t felt very lonely."),
            ("In the evening $F walked home [slowly|with a sad face].", "?$F wanted to go away "
             "and never come back."),
            ("When $t opened the door, everyone shouted, \"Surprise!\"", "Then the lights went "
             "on, and there were all $v friends. \"Happy birthday!\" they sang."),
            ("\"So that was your secret!\" said $F and laughed.", "$F was so happy that $t began "
             "to cry. \"I thought you had forgotten me,\" $t said."),
            ("$F opened the box and found the $x.", "They ate the cake, and $F showed the $x to "
             "everyone."),
        )},
    "sick": {
        "title": ("A Cup of Tea", "$H and the Sick Friend", "The Medicine"),
        "lesson": ("a visit can be the best medicine", "caring for others makes us strong",
                   "a friend is there when days are bad"),
        "facts": {"Who was sick?": "$F was sick.", "What did $H bring?": "$H brought $food."},
        "beats": (
            ("$p best friend was $fintro.", "Every day $s played with $fintro."),
            ("But one day $F did not come.", "On $day $F was not at the $place."),
            ("$H went to the house of $F and found $u in bed.", "So $H ran to $v house. $F lay "
             "in bed and was very [pale|hot]."),
            ("\"I am sick,\" said $F. \"My head hurts and I cannot sleep.\"", "\"I feel so "
             "weak,\" whispered $F."),
            ("$H ran to the doctor, who said, \"$T needs rest and a tea of $plant leaves.\"",
             "The doctor came and said, \"Only the $plant from the $place can help.\""),
            ("So $H walked all the way to the $place, although it was [raining|far|cold].",
             "It was a long way, but $H did not think twice."),
            ("$S picked the leaves and hurried back.", "There $s found the $plant and brought it "
             "home before night."),
            ("$S made the tea, brought some $food, and sat beside the bed.",
             "For two days $H brought $food and read stories to $F."),
            ("Soon $F felt better.", "On the third day $F got up and laughed."),
        )},
    "learn": {
        "title": ("$H Learns to Play", "The First Song", "The $color Flute"),
        "lesson": ("nobody is a master on the first day", "a little every day is enough",
                   "the best teachers are patient"),
        "facts": {"What did $H want to learn?": "$H wanted to play the flute.",
                  "Who was the teacher?": "$F was the teacher."},
        "beats": (
            ("$H wanted to learn to play the flute.", "More than anything, $H wished to play the "
             "flute like the $job."),
            ("But when $s tried, it sounded like a [sick $animal|broken door].",
             "The first sound was so bad that the $animal ran away."),
            ("Everyone laughed, and $H put the flute into a box.", "\"Please stop,\" said the "
             "neighbors, and $H felt ashamed."),
            ("Only $fintro did not laugh.", "Then $fintro came to $o."),
            ("\"When I began, I was worse than you,\" said $F. \"I will teach you.\"",
             "\"You need a teacher,\" said $F. \"Come to me every $day.\""),
            ("So $H practiced every day, [before breakfast|after school|in the $room].",
             "Week after week they played together."),
            ("First $s learned one note, then two, then a whole song.", "It was slow, but each "
             "day it sounded a little better."),
            ("In the spring there was a feast at the $place, and $H played for everyone.",
             "One evening $H played in front of the whole village."),
            ("Nobody laughed now. They [listened and smiled|clapped for a long time].",
             "When the song was over, it was quiet, and then everyone clapped."),
        )},
    "quarrel": {
        "title": ("The Quarrel", "One $x for Two", "$H and $F Make Peace"),
        "lesson": ("a quarrel has no winner", "it is better to share than to fight", "saying "
                   "sorry is a sign of strength"),
        "facts": {"What did they quarrel about?": "They quarreled about the $x.",
                  "Who said sorry first?": "$H said sorry first."},
        "beats": (
            ("$H and $F found $acolor $x at the same time.", "One day $H and $fintro both wanted "
             "the same $x."),
            ("\"It is mine!\" cried $H. \"No, I saw it first!\" cried $F.", "\"Give it to me,\" "
             "said $F. \"Never,\" said $H."),
            ("They pulled and pushed until the $x [fell into the mud|broke in two].",
             "They fought so long that the $animal came and carried the $x away."),
            ("Now nobody had it, and both went home angry.", "Then they did not speak to each "
             "other for [two days|a week]."),
            ("But it was [boring|lonely] to play alone.", "At home $H looked out of the window "
             "and missed $F."),
            ("\"What is $ax without a friend?\" thought $H.", "?$F missed $H too, but was too "
             "proud to say it."),
            ("So $H went to $F and said, \"I am sorry.\"", "In the end $H knocked at the door of "
             "$F. \"I am sorry,\" $s said. \"I was unkind.\""),
            ("\"I am sorry too,\" said $F.", "$F smiled and answered, \"Me too. Let us forget "
             "it.\""),
            ("From then on one of them had it in the morning and the other in the evening.",
             "After that they shared everything."),
        )},
}
