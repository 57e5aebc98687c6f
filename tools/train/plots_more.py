"""More plots, in the notation of stories.py: work, wonders and everyday life."""

PLOTS = {
    "kite": {
        "title": ("The Kite in the Tree", "High in the Tree", "$H and the Kite"),
        "lesson": ("some things are easier with two", "every friend can do something special",
                   "small friends can do great things"),
        "facts": {"What was stuck in the tree?": "The kite was stuck in the tree.",
                  "Who climbed up?": "$F climbed up."},
        "beats": (
            ("$H had made $acolor kite out of paper and string.", "For $p birthday $H had got "
             "$acolor kite."),
            ("The wind was strong, and the kite flew higher than the roofs.", "$S ran down the "
             "hill, and the kite rose into the air."),
            ("Suddenly the string broke.", "Then a strong wind pulled the string out of $p "
             "hand."),
            ("The kite flew away and was caught in the top of a tall tree.", "It turned, fell, "
             "and got stuck in an old oak."),
            ("$H tried to climb up, but the branches were too [high|thin|wet].", "$S threw "
             "stones at it, but they did not even come near."),
            ("\"What are you doing?\" asked $fintro.", "$fintro had seen everything. \"Let me "
             "try,\" said $F."),
            ("\"You are so small,\" said $H. \"That is why the branches will hold me,\" said "
             "$F.", "?\"It is too dangerous,\" said $H. \"I climb trees every day,\" answered $F."),
            ("$F went up, branch by branch, and took the kite carefully in one hand.",
             "Step by step $F climbed to the top and untied the string."),
            ("Soon $t was on the ground again and gave $H the kite.", "\"Catch!\" cried $F, and "
             "the kite floated down."),
            ("They tied a new string to it and let it fly together.", "For the rest of the day "
             "they took turns to hold the string."),
        )},
    "moon": {
        "title": ("A Wish for the Moon", "The Moon in the Water", "$H and the Moon"),
        "lesson": ("not everything beautiful can be owned", "some gifts belong to everyone",
                   "looking is sometimes better than having"),
        "facts": {"What did $H want?": "$H wanted the moon.", "Where did $H see the moon?":
                  "$H saw it in the water."},
        "beats": (
            ("Every night $H looked at the moon and thought, \"I want to have it.\"",
             "More than anything else $H wanted to own the moon."),
            ("First $s [climbed the highest tree|built a tower of boxes], but the moon was still "
             "far away.", "$S took a long ladder and leaned it against the sky, but there was "
             "nothing to hold it."),
            ("Then $s saw the moon in the water of the well.", "One night $s looked into the "
             "lake, and there was the moon, round and $color."),
            ("\"Now I have you!\" cried $H, and put a bucket into the water.", "$H took a net "
             "and tried to catch it."),
            ("But the moon broke into a hundred pieces and then came back again.", "The water "
             "moved, and the moon was gone. When the water was still, it came back."),
            ("$fintro sat near the water and laughed softly.", "\"What are you fishing for?\" "
             "asked $fintro."),
            ("\"I want to take the moon home,\" said $H.", "$H told $u about the wish."),
            ("\"If you had it at home,\" said $F, \"who would light the way for all the others?\"",
             "\"But then the sky would be dark for everyone,\" said $F."),
            ("$H thought about it for a long time.", "$H had not thought of that."),
            ("So they sat down side by side and looked at the moon until they were tired.",
             "From then on, $s only waved to the moon before going to bed."),
        )},
    "snow": {
        "title": ("The First Snow", "A Cold Winter", "Footprints in the Snow"),
        "lesson": ("those who share their fire are never cold", "a good plan saves the winter",
                   "work in summer is bread in winter"),
        "facts": {"What season was coming?": "The winter was coming.", "Who had nothing to eat?":
                  "$F had nothing to eat."},
        "beats": (
            ("All summer $H gathered $food and wood.", "While the days were long, $H filled the "
             "cellar with $food."),
            ("$fintro only wanted to sing and dance. \"The winter is far away,\" said $F.",
             "\"Why do you work so hard?\" asked $fintro. \"Come and play!\""),
            ("\"The winter is coming,\" said $H. \"What will you eat then?\"", "But $H went on "
             "working, day after day."),
            ("Then the first snow fell.", "One morning everything was white."),
            ("The wind was icy, and [the lake was frozen|no leaf was left on the trees].",
             "It was so cold that the birds stopped singing."),
            ("$F had no food and no wood, and soon $t was very hungry.", "In an empty house sat "
             "$F and shook with cold."),
            ("At last $t knocked at the door of $H. \"Please help me,\" said $F. \"I was "
             "foolish.\"", "There were footprints in the snow, and they led to the door of $H. "
             "It was $F, thin and cold."),
            ("$H did not laugh. \"Come in,\" $s said. \"There is enough for two.\"",
             "\"I told you so,\" thought $H, but $s opened the door and made hot soup."),
            ("All winter long $F sang songs by the fire, and the time went quickly.", "In return "
             "$F told stories every evening, and both were happy."),
            ("When spring came, $F was the first to work in the field.", "The next summer they "
             "gathered $food together."),
        )},
    "school": {
        "title": ("The New Friend", "A First Day", "Somebody New"),
        "lesson": ("a kind word can change a whole day", "everyone is new somewhere",
                   "a friend may be waiting in the last row"),
        "facts": {"Who was new at school?": "$F was new at school.", "What did $H share?":
                  "$H shared some $food."},
        "beats": (
            ("On $day there was somebody new at school: $fintro.", "One morning the teacher "
             "said, \"This is $F. Today is $v first day here.\""),
            ("$F sat alone in the last row and did not say a word.", "At noon $F stood alone "
             "beside the wall."),
            ("The others whispered and laughed.", "Nobody asked $u to play."),
            ("$H remembered how it had been on $p own first day.", "\"I know how that feels,\" "
             "thought $H."),
            ("So $s went over and said, \"My lunch is too big. Do you like $food?\"",
             "$S sat down beside $F and shared some $food."),
            ("\"Yes, very much,\" said $F in a low voice.", "$F looked up and smiled a little."),
            ("They began to talk, and $H learned that $F could [draw wonderful pictures|play the "
             "violin|name every star].", "\"What do you like to do?\" asked $H. \"I build "
             "little boats,\" said $F."),
            ("\"Will you show me how?\" asked $H.", "\"That is great,\" said $H. \"I have "
             "always wanted to learn that!\""),
            ("The next day $F was not alone any more.", "Soon the others came too, because they "
             "wanted to see it."),
        )},
    "clock": {
        "title": ("The Silent Clock", "Why the Clock Stopped", "The Clock in the Tower"),
        "lesson": ("a small cause can have a great effect", "it is wise to look closely",
                   "strength cannot do what care can do"),
        "facts": {"What stopped?": "The clock stopped.", "Who lived in the clock?":
                  "$F lived in the clock."},
        "beats": (
            ("In the middle of the town stood a tower with a big $color clock.", "Everyone "
             "loved the old clock in the tower, because it told them when to get up."),
            ("One day the clock stopped.", "On $day the clock was suddenly silent."),
            ("The baker burned the bread, and the teacher came too late.", "Nobody knew when it "
             "was time for lunch, and the whole town was confused."),
            ("The $job hit it with a hammer, but nothing happened.", "Three strong men pushed "
             "the hands, but the clock did not move."),
            ("\"Let me have a look,\" said $H.", "$H was small, but $s had good eyes and quiet "
             "hands."),
            ("$S climbed up the stairs with a candle and listened.", "Up in the tower $s opened "
             "the little door behind the clock."),
            ("There, between the wheels, sat $fintro in a nest of paper.", "Inside lived "
             "$fintro, who had made a bed between the wheels."),
            ("\"Oh,\" said $F, \"I only wanted a warm place. Did I break it?\"", "\"I am sorry,\" "
             "said $F. \"I did not know that I stopped the clock.\""),
            ("$H carried the nest to a safe corner, and the clock began to tick.",
             "\"You can live in my $room,\" said $H, and took $u home. At once the wheels began "
             "to turn."),
            ("The whole town cheered when the bell rang.", "From then on the clock was never "
             "late again."),
        )},
    "baker": {
        "title": ("The Salt in the Cake", "A Cake for the King", "The Wrong Cake"),
        "lesson": ("it is better to check twice", "a mistake can become something new",
                   "laughing together is better than blaming"),
        "facts": {"What went into the cake by mistake?": "Salt went into the cake by mistake.",
                  "Who was the cake for?": "It was for the king."},
        "beats": (
            ("The king was coming to the $place, and $H had to bake a cake.",
             "\"Bake me the best cake of the land,\" the king said to $H."),
            ("$H took flour, eggs, milk and $food.", "In the kitchen stood flour, eggs and a jar "
             "of $food."),
            ("$fintro wanted to help. \"I will bring the sugar,\" said $F.", "$F, $p helper, ran "
             "to get the sugar."),
            ("But $F took the wrong jar, and it was salt.", "There were two white jars, and "
             "nobody saw that it was the jar with salt."),
            ("The cake looked beautiful and had $color cream on top.", "They put the cake into "
             "the oven, and soon the whole house smelled good."),
            ("The king took a bite. His face became red, then white.", "Everyone watched while "
             "the king ate the first piece. He stopped and said nothing."),
            ("\"What is this?\" he cried. \"Salt!\"", "\"Water!\" cried the king. \"This cake is "
             "salty!\""),
            ("\"It was my fault,\" said $F in a small voice.", "$F began to cry. \"I took the "
             "wrong jar,\" $t said."),
            ("\"No, I should have tasted it,\" said $H.", "\"We made it together,\" said $H, "
             "\"so it was our mistake.\""),
            ("The king looked at the two of them and began to laugh. \"Bring me some soup,\" he "
             "said. \"Salty bread goes well with soup.\"", "Then the king laughed. \"Honest bakers "
             "are rare,\" he said. \"Try again tomorrow.\""),
        )},
    "painter": {
        "title": ("The Empty Wall", "The Picture of the $place", "A Picture for Everyone"),
        "lesson": ("beauty is made for sharing", "a little color can change a lot",
                   "it is worth trying something new"),
        "facts": {"What did $H paint?": "$H painted the wall.", "Who gave $H the paint?":
                  "$F gave $H the paint."},
        "beats": (
            ("There was a long grey wall in the town, and nobody liked it.", "The way to the "
             "market led along an ugly wall."),
            ("\"Somebody should do something,\" said the people.", "Every day $H walked past it "
             "and felt sad."),
            ("\"I could paint it,\" thought $H, \"but I have no paint.\"", "$H had two brushes, "
             "but no paint."),
            ("$F, who lived on the corner, heard about it.",
             "Then $s told $fintro about the idea."),
            ("\"I have some old pots of $color paint,\" said $F. \"Take them.\"",
             "$F went to the $room and came back with five pots of paint."),
            ("$H began early in the morning. First $s painted a $plant, then $ax, then a big "
             "$animal.", "All day long $s painted: the $place, the sky, and a $animal that "
             "laughed."),
            ("?People stopped and looked. \"May I help?\" asked a child.", "?\"That is not how a "
             "$animal looks,\" said the $job, but $H only smiled."),
            ("Soon half of the town was painting.", "When $p arm was tired, $F went on."),
            ("In the evening the wall was full of color.", "After three days there was no grey "
             "left."),
            ("Now people came from far away to see the wall.", "From that day on, everyone took "
             "the way along the wall, even when it was longer."),
        )},
    "song": {
        "title": ("The Bird Who Would Not Sing", "The Open Window", "The Cage"),
        "lesson": ("love needs an open door", "what you love you must let go", "freedom makes the "
                   "best songs"),
        "facts": {"What was in the cage?": "There was a bird in the cage.",
                  "Who opened the window?": "$H opened the window."},
        "beats": (
            ("$H had a little $color bird in a golden cage.", "On $day $H bought a bird with "
             "$color feathers."),
            ("But the bird did not sing.", "\"Sing for me,\" said $H, but the bird was silent."),
            ("$H gave it nuts, $food and fresh water.", "$S hung the cage near the window and "
             "played a tune on the flute."),
            ("Still it only looked out at the sky.", "Nothing helped. The bird sat still and "
             "looked at the trees."),
            ("\"What is wrong with it?\" $H asked $F.", "One day $fintro came to visit. \"Why is "
             "it so sad?\" asked $H."),
            ("\"Would you sing in a cage?\" said $F.", "\"It misses the wind,\" said $F."),
            ("That was not what $H wanted to hear.", "$H thought about these words all night."),
            ("In the morning $s opened the cage and the window.", "At last $s took the cage into "
             "the garden and opened the door."),
            ("The bird flew out and was gone in a moment.", "First the bird did not move. Then "
             "it spread its wings and flew away."),
            ("$H was sad, but the next day $s heard a song.", "?A day went by, and it was very "
             "quiet."),
            ("There it sat in the tree before the window and sang the most beautiful song.",
             "And every morning after that, the bird came back and sang."),
        )},
}
